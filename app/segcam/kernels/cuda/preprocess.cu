// A frame to the network's input in one pass: sample bilinearly, convert to RGB, normalise, lay out.
//
// A thread makes four neighbouring columns of two rows. The order of operations is that of kernels/cpu/preprocess.py:
// rows are mixed first, then columns, then the colour matrix from the left, clip, scale, shift, all in float32.
#include "common.cuh"

enum Flags {
    CHANNELS_LAST = 1,
    BGR_SWAPPED = 2,  // the network is fed the BGR picture's channels backwards
    WIDE_OUT = 4,     // four outputs in one store, and the width is a multiple of four
    UNIT_COLUMNS = 8, // column i of the input is column i of the frame, and four luma samples are one load
};

enum Dtype { FLOAT32, FLOAT16, UINT8 };

// All that a launch says. Pitches are in bytes; NV12's V plane and BGR's chroma are not looked at.
struct Job {
    const u8 *luma, *u, *v;
    int luma_pitch, u_pitch, v_pitch;
    const Tap *rows, *cols, *chroma_rows, *chroma_cols;
    void* out;
    int dtype, out_height, out_width;
    int top, bottom, left, right; // the rectangle of the input that shows the frame; 0 elsewhere
    int flags;
    float matrix[3][3], offset[3], scale[3], shift[3];

    // Column of the rectangle; outside it the nearest, whose value is replaced afterwards.
    DEVICE int shown(int col) const { return least(col < left ? left : col, right - 1) - left; }
};

// ---- samples ----

struct Eight {
    typedef u8 Raw;
    typedef u32 Four;
    DEVICE static float value(u32 raw) { return static_cast<float>(raw); }
    DEVICE static void four(const Raw* at, float (&values)[4]) {
        const u32 word = *reinterpret_cast<const Four*>(at);
        UNROLL for (int i = 0; i < 4; ++i) values[i] = value(word >> 8 * i & 255);
    }
    DEVICE static void pair(const Raw* at, float& first, float& second) {
        const u32 word = *reinterpret_cast<const u16*>(at);
        first = value(word & 255);
        second = value(word >> 8);
    }
};

// Ten bits in 16: SHIFT is 6 where they are the upper ones (P010).
template <int SHIFT>
struct Ten {
    typedef u16 Raw;
    typedef uint2 Four;
    DEVICE static float value(u32 raw) { return static_cast<float>(raw >> SHIFT); }
    DEVICE static void four(const Raw* at, float (&values)[4]) {
        const uint2 words = *reinterpret_cast<const Four*>(at);
        values[0] = value(words.x & 65535);
        values[1] = value(words.x >> 16);
        values[2] = value(words.y & 65535);
        values[3] = value(words.y >> 16);
    }
    DEVICE static void pair(const Raw* at, float& first, float& second) {
        const u32 word = *reinterpret_cast<const u32*>(at);
        first = value(word & 65535);
        second = value(word >> 16);
    }
};

// ---- two rows of planes, mixed ----

DEVICE float mixed(float first, float second, float weight_first, float weight_second) {
    return first * weight_first + second * weight_second;
}

// Where one row of the input lies in a plane: bytes to the row above and below, their weights. A row of weight 0 is not
// read. Planes have less than 4 GiB.
template <class Raw>
struct RowPair {
    const u8* plane;
    u32 above, below;
    float weight_above, weight_below;

    DEVICE RowPair(const u8* plane, int pitch, const Tap& row)
        : plane(plane),
          above(static_cast<u32>(row.first) * static_cast<u32>(pitch)),
          below(static_cast<u32>(row.second) * static_cast<u32>(pitch)),
          weight_above(row.weight_first),
          weight_below(row.weight_second) {}
    DEVICE const Raw* upper(int col) const { return at(above, col); }
    DEVICE const Raw* under(int col) const { return at(below, col); }
    DEVICE const Raw* at(u32 row, int col) const {
        return reinterpret_cast<const Raw*>(plane + (row + static_cast<u32>(col) * static_cast<u32>(sizeof(Raw))));
    }
    DEVICE bool both() const { return weight_below != 0; }
    DEVICE float mix(float first, float second) const { return mixed(first, second, weight_above, weight_below); }
};

template <class Depth>
struct Luma : RowPair<typename Depth::Raw> {
    typedef RowPair<typename Depth::Raw> Base;
    DEVICE Luma(const Job& job, const Tap& row) : Base(job.luma, job.luma_pitch, row) {}
    DEVICE float at(int col) const {
        const float first = Depth::value(*Base::upper(col));
        return Base::both() ? Base::mix(first, Depth::value(*Base::under(col))) : first;
    }
    DEVICE void four(int col, float (&values)[4]) const {
        Depth::four(Base::upper(col), values);
        if (Base::both()) {
            float below[4];
            Depth::four(Base::under(col), below);
            UNROLL for (int i = 0; i < 4; ++i) values[i] = Base::mix(values[i], below[i]);
        }
    }
};

template <class Depth_>
struct Interleaved {
    typedef Depth_ Depth;
    RowPair<typename Depth::Raw> uv;
    DEVICE Interleaved(const Job& job, const Tap& row) : uv(job.u, job.u_pitch, row) {}
    DEVICE void at(int col, float& u, float& v) const {
        Depth::pair(uv.upper(2 * col), u, v);
        if (uv.both()) {
            float u_below, v_below;
            Depth::pair(uv.under(2 * col), u_below, v_below);
            u = uv.mix(u, u_below);
            v = uv.mix(v, v_below);
        }
    }
    // Samples `col` and `col` + 1, for an even `col`.
    DEVICE void two(int col, float* u, float* v) const {
        float values[4];
        Depth::four(uv.upper(2 * col), values);
        if (uv.both()) {
            float below[4];
            Depth::four(uv.under(2 * col), below);
            UNROLL for (int i = 0; i < 4; ++i) values[i] = uv.mix(values[i], below[i]);
        }
        u[0] = values[0], v[0] = values[1], u[1] = values[2], v[1] = values[3];
    }
};

template <class Depth_>
struct Planar {
    typedef Depth_ Depth;
    typedef RowPair<typename Depth::Raw> Rows;
    Rows u_rows, v_rows;
    DEVICE Planar(const Job& job, const Tap& row) : u_rows(job.u, job.u_pitch, row), v_rows(job.v, job.v_pitch, row) {}
    DEVICE static float one(const Rows& rows, int col) {
        const float first = Depth::value(*rows.upper(col));
        return rows.both() ? rows.mix(first, Depth::value(*rows.under(col))) : first;
    }
    DEVICE static void pair(const Rows& rows, int col, float* values) {
        Depth::pair(rows.upper(col), values[0], values[1]);
        if (rows.both()) {
            float first, second;
            Depth::pair(rows.under(col), first, second);
            values[0] = rows.mix(values[0], first);
            values[1] = rows.mix(values[1], second);
        }
    }
    DEVICE void at(int col, float& u, float& v) const {
        u = one(u_rows, col);
        v = one(v_rows, col);
    }
    DEVICE void two(int col, float* u, float* v) const {
        pair(u_rows, col, u);
        pair(v_rows, col, v);
    }
};

// ---- pictures: one row of the input, four columns of it, in the order fed, normalised ----

template <class Chroma>
struct Yuv {
    Luma<typename Chroma::Depth> luma;
    Chroma chroma;

    DEVICE Yuv(const Job& job, int row)
        : luma(job, tap_at(job.rows, row)), chroma(job, tap_at(job.chroma_rows, row)) {}

    DEVICE void sample(const Job& job, int col, float (&y)[4], float (&u)[4], float (&v)[4]) const {
        if ((job.flags & UNIT_COLUMNS) && col >= 4 && col + 8 <= job.right) {
            // Luma as it is; chroma samples lie a quarter to either side of their pixels, so four serve four pixels.
            float us[4], vs[4];
            const int at = col / 2;
            luma.four(col, y);
            chroma.at(at - 1, us[0], vs[0]);
            chroma.two(at, us + 1, vs + 1);
            chroma.at(at + 2, us[3], vs[3]);
            UNROLL for (int i = 0; i < 4; ++i) {
                const int left = (i + 1) / 2;
                const float weight_left = i % 2 ? 0.75f : 0.25f, weight_right = i % 2 ? 0.25f : 0.75f;
                u[i] = mixed(us[left], us[left + 1], weight_left, weight_right);
                v[i] = mixed(vs[left], vs[left + 1], weight_left, weight_right);
            }
            return;
        }
        UNROLL for (int i = 0; i < 4; ++i) {
            const int x = job.shown(col + i);
            const Tap l = tap_at(job.cols, x);
            y[i] = luma.at(l.first);
            if (l.weight_second != 0) y[i] = mixed(y[i], luma.at(l.second), l.weight_first, l.weight_second);
            const Tap c = tap_at(job.chroma_cols, x);
            chroma.at(c.first, u[i], v[i]);
            if (c.weight_second != 0) {
                float u_second, v_second;
                chroma.at(c.second, u_second, v_second);
                u[i] = mixed(u[i], u_second, c.weight_first, c.weight_second);
                v[i] = mixed(v[i], v_second, c.weight_first, c.weight_second);
            }
        }
    }

    DEVICE void four(const Job& job, int col, float (&fed)[3][4]) const {
        float y[4], u[4], v[4];
        sample(job, col, y, u, v);
        UNROLL for (int c = 0; c < 3; ++c) {
            UNROLL for (int i = 0; i < 4; ++i) {
                const float* m = job.matrix[c];
                float value = m[0] * y[i] + m[1] * u[i] + m[2] * v[i] + job.offset[c];
                value = value > 0.0f ? value : 0.0f;
                value = value < 255.0f ? value : 255.0f;
                fed[c][i] = value * job.scale[c] + job.shift[c];
            }
        }
    }
};

struct Bgr {
    RowPair<u8> rows;

    DEVICE Bgr(const Job& job, int row) : rows(job.luma, job.luma_pitch, tap_at(job.rows, row)) {}
    DEVICE float at(int byte) const {
        const float first = static_cast<float>(*rows.upper(byte));
        return rows.both() ? rows.mix(first, static_cast<float>(*rows.under(byte))) : first;
    }
    DEVICE void four(const Job& job, int col, float (&fed)[3][4]) const {
        UNROLL for (int i = 0; i < 4; ++i) {
            const Tap tap = tap_at(job.cols, job.shown(col + i));
            UNROLL for (int c = 0; c < 3; ++c) {
                const int channel = job.flags & BGR_SWAPPED ? 2 - c : c;
                float value = at(3 * tap.first + channel);
                if (tap.weight_second != 0) {
                    value = mixed(value, at(3 * tap.second + channel), tap.weight_first, tap.weight_second);
                }
                fed[c][i] = value * job.scale[c] + job.shift[c];
            }
        }
    }
};

// ---- the network's input ----

struct Float {
    typedef float Type;
    DEVICE static float of(float value) { return value; }
    DEVICE static void four(float* at, const float* v) {
        *reinterpret_cast<float4*>(at) = {v[0], v[1], v[2], v[3]};
    }
};

struct Half {
    typedef u16 Type;
    DEVICE static u16 of(float value) { return float_to_half(value); }
    DEVICE static void four(u16* at, const float* v) {
        const u32 low = of(v[0]) | static_cast<u32>(of(v[1])) << 16, high = of(v[2]) | static_cast<u32>(of(v[3])) << 16;
        *reinterpret_cast<uint2*>(at) = {low, high};
    }
};

struct Byte {
    typedef u8 Type;
    // Rounded to nearest, ties to even, as numpy.rint.
    DEVICE static u8 of(float value) {
        value = value > 0.0f ? value : 0.0f;
        return static_cast<u8>(__float2int_rn(value < 255.0f ? value : 255.0f));
    }
    DEVICE static void four(u8* at, const float* v) {
        *reinterpret_cast<u32*>(at) = of(v[0]) | static_cast<u32>(of(v[1])) << 8 | static_cast<u32>(of(v[2])) << 16 |
                                      static_cast<u32>(of(v[3])) << 24;
    }
};

// Four columns of one row, of which `count` are there.
template <class Out>
DEVICE void store(const Job& job, int row, int col, const float (&fed)[3][4], int count) {
    const u64 pixel = static_cast<u64>(row) * job.out_width + col;
    const bool channels_last = job.flags & CHANNELS_LAST;
    const u64 step = channels_last ? 3 : 1;
    const u64 channel = channels_last ? 1 : static_cast<u64>(job.out_height) * job.out_width;
    typename Out::Type* out = static_cast<typename Out::Type*>(job.out) + step * pixel;
    if (!(job.flags & WIDE_OUT)) {
        UNROLL for (int c = 0; c < 3; ++c) {
            UNROLL for (int i = 0; i < 4; ++i) {
                if (i < count) out[c * channel + i * step] = Out::of(fed[c][i]);
            }
        }
    } else if (channels_last) {
        float values[12];
        UNROLL for (int i = 0; i < 12; ++i) values[i] = fed[i % 3][i / 3];
        UNROLL for (int i = 0; i < 12; i += 4) Out::four(out + i, values + i);
    } else {
        UNROLL for (int c = 0; c < 3; ++c) Out::four(out + c * channel, fed[c]);
    }
}

// The pixel counts that postprocess.cu adds to, (256,), may be null: one piece of work less in between.
DEVICE void clear(u32* counts) {
    if (counts && blockIdx.x == 0 && blockIdx.y == 0) counts[threadIdx.x] = 0;
}

template <class Picture>
DEVICE void preprocess(const Job& job) {
    const int col = 4 * static_cast<int>(blockIdx.x * 32 + threadIdx.x % 32);
    const int begin = 2 * static_cast<int>(blockIdx.y * 8 + threadIdx.x / 32);
    if (col >= job.out_width) return;
    const int count = least(4, job.out_width - col);
#pragma unroll 1
    for (int row = begin; row < least(begin + 2, job.out_height); ++row) {
        float fed[3][4] = {};
        if (row >= job.top && row < job.bottom && col + 4 > job.left && col < job.right) {
            Picture(job, row - job.top).four(job, col, fed);
            UNROLL for (int i = 0; i < 4; ++i) {
                const bool inside = col + i >= job.left && col + i < job.right;
                UNROLL for (int c = 0; c < 3; ++c) fed[c][i] = inside ? fed[c][i] : 0.0f;
            }
        }
        if (job.dtype == FLOAT16) {
            store<Half>(job, row, col, fed, count);
        } else if (job.dtype == FLOAT32) {
            store<Float>(job, row, col, fed, count);
        } else {
            store<Byte>(job, row, col, fed, count);
        }
    }
}

#define ENTRY(name, ...)                                                                                             \
    KERNEL(name,                                                                                                     \
           (const u8* luma, const u8* u, const u8* v, int luma_pitch, int u_pitch, int v_pitch, const Tap* rows,     \
            const Tap* cols, const Tap* chroma_rows, const Tap* chroma_cols, void* out, int dtype, int out_height,   \
            int out_width, int top, int bottom, int left, int right, int flags, float m00, float m01, float m02,     \
            float m10, float m11, float m12, float m20, float m21, float m22, float o0, float o1, float o2,          \
            float s0, float s1, float s2, float t0, float t1, float t2, u32* cleared),                               \
           const Job job = {luma, u, v, luma_pitch, u_pitch, v_pitch, rows, cols, chroma_rows, chroma_cols, out,     \
                            dtype, out_height, out_width, top, bottom, left, right, flags,                           \
                            {{m00, m01, m02}, {m10, m11, m12}, {m20, m21, m22}}, {o0, o1, o2}, {s0, s1, s2},         \
                            {t0, t1, t2}};                                                                           \
           EACH_THREAD { clear(cleared); preprocess<__VA_ARGS__>(job); })

ENTRY(preprocess_nv12, Yuv<Interleaved<Eight>>)
ENTRY(preprocess_i420, Yuv<Planar<Eight>>)
ENTRY(preprocess_p010, Yuv<Interleaved<Ten<6>>>)
ENTRY(preprocess_i420p10, Yuv<Planar<Ten<0>>>)
ENTRY(preprocess_bgr24, Bgr)

#undef ENTRY
