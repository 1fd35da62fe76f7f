// Scores or ids on a coarse grid to the class map, its pixel counts and the overlay, in one pass.
//
// A block of 256 threads names a tile of 16 rows and 128 columns. Where one class safely leads at all four corners of a
// cell of the score grid, it leads inside; elsewhere every class is interpolated, in float32, in the order of
// kernels/reference.py: so labels equal the plain argmax of the plain interpolation, whatever the scores are
// (kernels/cpu/coarse.py says why). What lies between the steps stays in shared memory.
#include "common.cuh"
#include "painting.cuh"
#include "scores.cuh"

constexpr int ROWS = 16, COLS = 128, PIXELS = ROWS * COLS, THREADS = 256;
// Points of the grid under one tile, at most; the launcher asks for DIRECT where a tile may need more.
constexpr int POINTS = 2304;

enum Flags {
    DIRECT = 1, // every pixel is interpolated: grids as fine as the picture, or finer
    WIDE = 2,   // planes and labels lie so that four samples go at once
};

// All that a launch says. Strides count elements, pitches bytes; what may be null is not written then.
struct Job {
    const void* grid;
    u64 class_stride;
    int row_stride, point_stride, classes;
    const Tap *rows, *cols;
    int height, width, flags;
    u8* labels; // may be null
    int labels_pitch;
    u32* counts; // (256,), added to; may be null
    Painting painting;
};

struct Tile {
    alignas(4) u8 labels[ROWS][COLS];
    u8 keys[POINTS];  // the class that safely leads at a point of the grid, or UNSURE
    u8 cells[POINTS]; // the class that leads in the whole cell whose top left point this is, or UNSURE
    u16 line[ROWS], column[COLS]; // the cell of each row and column of pixels, from the tile's first
    u16 mixed[PIXELS];            // pixels in cells that nobody leads
    u32 mixed_count;
    u32 counts[256];
};

// The part of the picture that a block names, and of the grid that it looks at.
struct Place {
    int top, left, height, width;
    int first_row, first_col, grid_height, grid_width;

    DEVICE explicit Place(const Job& job) {
        top = static_cast<int>(blockIdx.y) * ROWS;
        left = static_cast<int>(blockIdx.x) * COLS;
        height = least(ROWS, job.height - top);
        width = least(COLS, job.width - left);
        first_row = job.rows[top].first;
        first_col = job.cols[left].first;
        grid_height = job.rows[top + height - 1].second - first_row + 1;
        grid_width = job.cols[left + width - 1].second - first_col + 1;
    }
};

// The class of one pixel. A corner of weight 0 is not looked at, even if it is infinite; the first NaN wins.
template <class Score, int CLASSES>
DEVICE u8 argmax_at(const Job& job, const Tap& row, const Tap& col) {
    typedef typename Score::Type Type;
    const Type* grid = static_cast<const Type*>(job.grid);
    const Type* above = grid + static_cast<u64>(row.first) * job.row_stride;
    const Type* below = grid + static_cast<u64>(row.second) * job.row_stride;
    const int left = col.first * job.point_stride, right = col.second * job.point_stride;
    const float w00 = col.weight_first * row.weight_first, w01 = col.weight_second * row.weight_first;
    const float w10 = col.weight_first * row.weight_second, w11 = col.weight_second * row.weight_second;
    const bool two_cols = col.weight_second != 0, two_rows = row.weight_second != 0;
    float best = 0;
    int winner = -1;
#pragma unroll(CLASSES ? CLASSES : 4)
    for (int k = 0; k < (CLASSES ? CLASSES : job.classes); ++k) {
        const u64 at = k * job.class_stride;
        float value = Score::value(above[at + left]) * w00;
        if (two_cols) value = value + Score::value(above[at + right]) * w01;
        if (two_rows) {
            value = value + Score::value(below[at + left]) * w10;
            if (two_cols) value = value + Score::value(below[at + right]) * w11;
        }
        if (winner < 0 || value > best || (is_nan(value) && !is_nan(best))) {
            best = value;
            winner = k;
        }
    }
    return static_cast<u8>(winner);
}

// ---- the steps; between two of them all threads wait for each other ----

template <class Score, int CLASSES>
DEVICE void look_at_points(const Job& job, const Place& place, Tile& tile) {
    const int thread = threadIdx.x;
    tile.counts[thread] = 0;
    if (thread == 0) tile.mixed_count = 0;
    if (job.flags & DIRECT) return;
    if (thread < place.width) {
        tile.column[thread] = static_cast<u16>(job.cols[place.left + thread].first - place.first_col);
    } else if (thread >= COLS && thread < COLS + place.height) {
        const int row = thread - COLS;
        tile.line[row] = static_cast<u16>((job.rows[place.top + row].first - place.first_row) * place.grid_width);
    }
    const typename Score::Type* grid = static_cast<const typename Score::Type*>(job.grid);
    for (int i = thread; i < place.grid_height * place.grid_width; i += THREADS) {
        const int row = i / place.grid_width, col = i - row * place.grid_width;
        const u64 at = static_cast<u64>(place.first_row + row) * job.row_stride +
                       static_cast<u64>(place.first_col + col) * job.point_stride;
        tile.keys[i] = key_of<Score, CLASSES>(grid + at, job.class_stride, job.classes);
    }
}

DEVICE void decide_cells(const Job& job, const Place& place, Tile& tile) {
    if (job.flags & DIRECT) return;
    for (int i = threadIdx.x; i < place.grid_height * place.grid_width; i += THREADS) {
        const int row = i / place.grid_width, col = i - row * place.grid_width;
        const int right = col + 1 < place.grid_width, below = row + 1 < place.grid_height ? place.grid_width : 0;
        const u8 key = tile.keys[i];
        const bool beside = key == tile.keys[i + right];
        const bool one = beside && key == tile.keys[i + below] && key == tile.keys[i + below + right];
        tile.cells[i] = one ? key : UNSURE;
    }
}

// A thread has four columns of two rows, here and in `write`: as many labels as chroma samples need.
struct Group {
    int row, col;
    DEVICE Group() : row(2 * static_cast<int>(threadIdx.x / 32)), col(4 * static_cast<int>(threadIdx.x % 32)) {}
};

DEVICE void spread_cells(const Job& job, const Place& place, Tile& tile) {
    if (job.flags & DIRECT) return;
    const Group group;
    u32 undecided = 0;
    UNROLL for (int i = 0; i < 8; ++i) {
        const int row = group.row + i / 4, col = group.col + i % 4;
        if (row < place.height && col < place.width) {
            const u8 cell = tile.cells[tile.line[row] + tile.column[col]];
            tile.labels[row][col] = cell;
            undecided |= (cell == UNSURE ? 1u : 0u) << i;
        }
    }
    if (undecided == 0) return;
    u32 at = atomicAdd(&tile.mixed_count, static_cast<u32>(__popc(undecided)));
    UNROLL for (int i = 0; i < 8; ++i) {
        if (undecided >> i & 1) tile.mixed[at++] = static_cast<u16>((group.row + i / 4) * COLS + group.col + i % 4);
    }
}

template <class Score, int CLASSES>
DEVICE void interpolate(const Job& job, const Place& place, Tile& tile) {
    const bool direct = job.flags & DIRECT;
    const int count = direct ? PIXELS : static_cast<int>(tile.mixed_count);
    for (int i = threadIdx.x; i < count; i += THREADS) {
        const int pixel = direct ? i : tile.mixed[i], row = pixel / COLS, col = pixel % COLS;
        if (row < place.height && col < place.width) {
            tile.labels[row][col] = argmax_at<Score, CLASSES>(
                job, tap_at(job.rows, place.top + row), tap_at(job.cols, place.left + col));
        }
    }
}

// Ids are taken from the nearest point (the taps' first), never mixed. One that no uint8 holds is 255: no class.
template <class Id>
DEVICE void take_ids(const Job& job, const Place& place, Tile& tile) {
    tile.counts[threadIdx.x] = 0;
    for (int i = threadIdx.x; i < PIXELS; i += THREADS) {
        const int row = i / COLS, col = i % COLS;
        if (row < place.height && col < place.width) {
            const u64 at = static_cast<u64>(job.rows[place.top + row].first) * job.row_stride +
                           static_cast<u64>(job.cols[place.left + col].first) * job.point_stride;
            // Negative ids are huge here.
            const u64 id = static_cast<u64>(static_cast<long long>(static_cast<const Id*>(job.grid)[at]));
            tile.labels[row][col] = id > 255 ? 255 : static_cast<u8>(id);
        }
    }
}

// Threads of a warp that have the same label at this moment add in one go.
DEVICE void count_eight(u32* counts, u32 label) {
    const u32 together = __match_any_sync(__activemask(), label);
    if (static_cast<int>(threadIdx.x % 32) == __ffs(static_cast<int>(together)) - 1) {
        atomicAdd(counts + label, static_cast<u32>(8 * __popc(together)));
    }
}

// Eight pixels that are all there, in planes where four samples go at once.
DEVICE void write_wide(const Job& job, const Group& group, int x, int y, Tile& tile) {
    const Painting& paint = job.painting;
    uint2 luma[2] = {}, chroma = {};
    if (paint.overlay != NO_PICTURE && paint.overlay != BGR24) {
        UNROLL for (int r = 0; r < 2; ++r) luma[r] = fetch_luma<4>(paint, x, y + r);
        chroma = fetch_chroma<4>(paint, x, y);
    }
    u32 labels[2];
    UNROLL for (int r = 0; r < 2; ++r) labels[r] = load_word<4>(&tile.labels[group.row + r][group.col]);
    if (labels[0] == labels[1] && labels[0] == byte_of(labels[0], 0) * 0x01010101u) {
        count_eight(tile.counts, byte_of(labels[0], 0));
    } else {
        UNROLL for (int i = 0; i < 8; ++i) atomicAdd(tile.counts + byte_of(labels[i / 4], i % 4), 1u);
    }
    if (job.labels) {
        UNROLL for (int r = 0; r < 2; ++r) store_word<4>(row_of(job.labels, y + r, job.labels_pitch) + x, labels[r]);
    }
    if (paint.overlay == NO_PICTURE) return;
    int keeps[2] = {}, us[2] = {}, vs[2] = {};
    UNROLL for (int r = 0; r < 2; ++r) {
        int4 table[4];
        UNROLL for (int i = 0; i < 4; ++i) {
            table[i] = paint.table[byte_of(labels[r], i)];
            keeps[i / 2] += table[i].x;
            us[i / 2] += table[i].z;
            vs[i / 2] += table[i].w;
        }
        paint_pixels(paint, x, y + r, luma[r], table);
    }
    if (paint.overlay != BGR24) paint_chroma(paint, x, y, chroma, keeps, us, vs);
}

// The pixels of a group at the picture's edge, or in planes that lie anyhow, one by one. Chroma samples take the last
// pixel again beyond the edge.
DEVICE void write_each(const Job& job, const Place& place, const Group& group, Tile& tile) {
    const Painting& paint = job.painting;
    const int bottom = least(group.row + 2, place.height), right = least(group.col + 4, place.width);
#pragma unroll 1
    for (int row = group.row; row < bottom; ++row) {
#pragma unroll 1
        for (int col = group.col; col < right; ++col) {
            const int y = place.top + row, x = place.left + col;
            const u8 label = tile.labels[row][col];
            atomicAdd(tile.counts + label, 1u);
            if (job.labels) row_of(job.labels, y, job.labels_pitch)[x] = label;
            if (paint.overlay == NO_PICTURE) continue;
            const int4 table[1] = {paint.table[label]};
            paint_pixels(paint, x, y, fetch_luma<1>(paint, x, y), table);
            if (paint.overlay == BGR24 || ((row | col) & 1)) continue;
            int keep[1] = {}, u[1] = {}, v[1] = {};
#pragma unroll 1
            for (int i = 0; i < 4; ++i) {
                const int4 one = paint.table[tile.labels[least(row + i / 2, bottom - 1)][least(col + i % 2, right - 1)]];
                keep[0] += one.x;
                u[0] += one.z;
                v[0] += one.w;
            }
            // A pair of U and V goes at once wherever it lies: picture.py sees to that.
            paint_chroma(paint, x, y, fetch_chroma<2>(paint, x, y), keep, u, v);
        }
    }
}

DEVICE void write(const Job& job, const Place& place, Tile& tile) {
    const Group group;
    if ((job.flags & WIDE) && group.row + 2 <= place.height && group.col + 4 <= place.width) {
        write_wide(job, group, place.left + group.col, place.top + group.row, tile);
    } else {
        write_each(job, place, group, tile);
    }
}

DEVICE void add_counts(const Job& job, const Tile& tile) {
    const u32 count = tile.counts[threadIdx.x];
    if (job.counts && count) atomicAdd(job.counts + threadIdx.x, count);
}

#define ENTRY(name, ...)                                                                                             \
    KERNEL(name,                                                                                                     \
           (const void* grid, u64 class_stride, int row_stride, int point_stride, int classes, const Tap* rows,      \
            const Tap* cols, int height, int width, int flags, u8* labels, int labels_pitch, u32* counts,            \
            int source, int overlay, u32 scale, const int4* table, const u8* in0, const u8* in1, const u8* in2,      \
            int in_pitch0, int in_pitch1, int in_pitch2, u8* out0, u8* out1, u8* out2, int out_pitch0,               \
            int out_pitch1, int out_pitch2),                                                                         \
           const Job job = {grid, class_stride, row_stride, point_stride, classes, rows, cols, height, width, flags, \
                            labels, labels_pitch, counts,                                                            \
                            {source, overlay, scale, table, in0, in1, in2, in_pitch0, in_pitch1, in_pitch2, out0,    \
                             out1, out2, out_pitch0, out_pitch1, out_pitch2}};                                       \
           SHARED(Tile, tile);                                                                                       \
           const Place place(job);                                                                                   \
           EACH_THREAD prefetch_picture(job.painting, place.top, place.left, place.height, place.width);             \
           __VA_ARGS__ BARRIER                                                                                       \
           EACH_THREAD write(job, place, tile); BARRIER                                                              \
           EACH_THREAD add_counts(job, tile);)

#define SCORES(name, Score, CLASSES)                                                       \
    ENTRY(name, EACH_THREAD look_at_points<Score , CLASSES>(job, place, tile); BARRIER \
          EACH_THREAD decide_cells(job, place, tile); BARRIER                              \
          EACH_THREAD spread_cells(job, place, tile); BARRIER                              \
          EACH_THREAD interpolate<Score , CLASSES>(job, place, tile);)

#define IDS(name, Id) ENTRY(name, EACH_THREAD take_ids<Id>(job, place, tile);)

// Most street networks name 19 classes: theirs are unrolled, in the types that TensorRT mostly gives.
SCORES(postprocess_float32_19, Float, 19)
SCORES(postprocess_float32, Float, 0)
SCORES(postprocess_float16_19, Half, 19)
SCORES(postprocess_float16, Half, 0)
SCORES(postprocess_bfloat16, Bfloat, 0)
IDS(postprocess_ids_int8, signed char)
IDS(postprocess_ids_uint8, u8)
IDS(postprocess_ids_int32, int)
IDS(postprocess_ids_int64, long long)

#undef ENTRY
#undef SCORES
#undef IDS
