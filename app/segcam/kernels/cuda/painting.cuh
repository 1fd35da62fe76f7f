// The overlay: what is fetched stays as it lies in the source, so that nothing waits for it while more is on its way;
// then N samples of eight bits are a word, whatever the source is, and words are stored as the overlay wants.
#pragma once

#include "common.cuh"

// Of the source and of the overlay, which is never one of those of ten bits: they come last.
enum Format { NO_PICTURE, NV12, I420, BGR24, P010, I420P10 };

// What is painted where. Pitches count bytes.
struct Painting {
    int source, overlay; // formats: the same, or any 4:2:0 into NV12
    u32 scale;           // of a source of ten bits, with 22 fractional bits: what makes eight bits of its samples
    const int4* table; // (256,) of each id: what is kept of a sample, what is added to each plane; 16 fractional bits
    const u8 *in0, *in1, *in2;
    int in_pitch0, in_pitch1, in_pitch2;
    u8 *out0, *out1, *out2;
    int out_pitch0, out_pitch1, out_pitch2;
};

// Lines of the source's planes under a block, at most: 16 rows of 128 columns of three bytes, and eight rows of chroma
// of 64 columns of two by two.
constexpr int LINE = 128, LUMA_LINES = 16 * 3, CHROMA_LINES = 8 * 2;

// Asks for `thread`'s line of a plane's part that is `height` rows of `length` bytes.
DEVICE void prefetch_line(const u8* plane, int pitch, int top, int left, int height, int length, int thread) {
    const int row = thread % height, at = thread / height * LINE;
    if (at < length) prefetch(row_of(plane, top + row, pitch) + left + at);
}

// The part of the picture under a block of 256 threads is needed last, when the scores, for which all wait first, have
// been looked at.
DEVICE void prefetch_picture(const Painting& paint, int top, int left, int height, int width) {
    if (paint.overlay == NO_PICTURE) return;
    const int bytes = paint.overlay == BGR24 ? 3 : paint.source < P010 ? 1 : 2;
    int line = threadIdx.x;
    if (line < LUMA_LINES) {
        prefetch_line(paint.in0, paint.in_pitch0, top, bytes * left, height, bytes * width, line);
    }
    line -= LUMA_LINES;
    if (paint.overlay == BGR24 || line < 0) return;
    const bool pairs = paint.source == NV12 || paint.source == P010;
    const int unit = (pairs ? 2 : 1) * bytes, rows = (height + 1) / 2, length = unit * ((width + 1) / 2);
    if (line < CHROMA_LINES) {
        prefetch_line(paint.in1, paint.in_pitch1, top / 2, unit * (left / 2), rows, length, line);
    } else if (!pairs && line < 2 * CHROMA_LINES) {
        prefetch_line(paint.in2, paint.in_pitch2, top / 2, unit * (left / 2), rows, length, line - CHROMA_LINES);
    }
}

// What N samples are that go at once: of 8 bits, of 16.
template <int N> struct Access;
template <> struct Access<1> { typedef u8 Eight; typedef u16 Sixteen; };
template <> struct Access<2> { typedef u16 Eight; typedef u32 Sixteen; };
template <> struct Access<4> { typedef u32 Eight; typedef u64 Sixteen; };

template <int N>
DEVICE u32 load_word(const u8* from) {
    return *reinterpret_cast<const typename Access<N>::Eight*>(from);
}

template <int N>
DEVICE void store_word(u8* to, u32 word) {
    *reinterpret_cast<typename Access<N>::Eight*>(to) = static_cast<typename Access<N>::Eight>(word);
}

DEVICE u32 byte_of(u32 word, int i) {
    return word >> 8 * i & 255;
}

// N samples of a row of the source, from the one at `at` on.
template <int N>
DEVICE uint2 fetch(const Painting& paint, const u8* row, int at) {
    if (paint.source < P010) return {load_word<N>(row + at), 0};
    const u64 raw = *reinterpret_cast<const typename Access<N>::Sixteen*>(row + 2 * at);
    return {static_cast<u32>(raw), static_cast<u32>(raw >> 32)};
}

template <int N>
DEVICE uint2 fetch_luma(const Painting& paint, int x, int y) {
    if (paint.overlay == BGR24) return {};
    return fetch<N>(paint, row_of(paint.in0, y, paint.in_pitch0), x);
}

// The chroma of N columns of two rows of pixels; `x` and `y` are even.
template <int N>
DEVICE uint2 fetch_chroma(const Painting& paint, int x, int y) {
    const u8* row = row_of(paint.in1, y / 2, paint.in_pitch1);
    if (paint.source == NV12 || paint.source == P010) return fetch<N>(paint, row, x);
    const u8* other = row_of(paint.in2, y / 2, paint.in_pitch2);
    return {fetch<N / 2>(paint, row, x / 2).x, fetch<N / 2>(paint, other, x / 2).x};
}

// Ten bits become eight as in sources/planes.py: to nearest, ties to even.
template <int N>
DEVICE u32 in_eight_bits(const Painting& paint, uint2 raw) {
    if (paint.source < P010) return raw.x;
    u32 word = 0;
    UNROLL for (int i = 0; i < N; ++i) {
        const u32 ten = ((i < 2 ? raw.x : raw.y) >> 16 * (i % 2) & 65535) >> (paint.source == P010 ? 6 : 0);
        const u32 rounded = (ten * paint.scale + ((1u << 21) - 1) + (ten >> 2 & 1)) >> 22;
        word |= (rounded < 255 ? rounded : 255) << 8 * i;
    }
    return word;
}

template <int N>
DEVICE void store_chroma(const Painting& paint, int x, int y, u32 word) {
    u8* row = row_of(paint.out1, y / 2, paint.out_pitch1);
    if (paint.overlay == NV12) {
        store_word<N>(row + x, word);
    } else {
        store_word<N / 2>(row + x / 2, (word & 0xFF) | (word >> 8 & 0xFF00));
        u8* other = row_of(paint.out2, y / 2, paint.out_pitch2);
        store_word<N / 2>(other + x / 2, (word >> 8 & 0xFF) | (word >> 16 & 0xFF00));
    }
}

// The `i`-th sample of a word blended, at its place; `keep` and `add` have so many fractional bits.
DEVICE u32 blend(u32 word, int i, int keep, int add, int bits = 16) {
    return static_cast<u32>((static_cast<int>(byte_of(word, i)) * keep + add + (1 << (bits - 1))) >> bits) << 8 * i;
}

// Of full resolution; each word has N samples.
template <int CHANNELS, int N>
DEVICE void paint_words(const Painting& paint, int x, int y, const u32 (&words)[CHANNELS], const int4 (&table)[N]) {
    u8* out = row_of(paint.out0, y, paint.out_pitch0) + CHANNELS * x;
    u32 blended[CHANNELS] = {};
    UNROLL for (int i = 0; i < CHANNELS * N; ++i) {
        const int4 entry = table[i / CHANNELS];
        const int add = i % CHANNELS == 0 ? entry.y : i % CHANNELS == 1 ? entry.z : entry.w;
        blended[i / N] |= blend(words[i / N], i % N, entry.x, add);
    }
    UNROLL for (int i = 0; i < CHANNELS; ++i) store_word<N>(out + i * N, blended[i]);
}

template <int N>
DEVICE void paint_pixels(const Painting& paint, int x, int y, uint2 luma, const int4 (&table)[N]) {
    if (paint.overlay == BGR24) {
        const u8* in = row_of(paint.in0, y, paint.in_pitch0) + 3 * x;
        paint_words<3>(paint, x, y, {load_word<N>(in), load_word<N>(in + N), load_word<N>(in + 2 * N)}, table);
    } else {
        paint_words<1>(paint, x, y, {in_eight_bits<N>(paint, luma)}, table);
    }
}

// A chroma sample takes the mean of the tables of its four pixels, whose sums these are.
template <int N>
DEVICE void paint_chroma(
    const Painting& paint, int x, int y, uint2 raw, const int (&keeps)[N], const int (&us)[N], const int (&vs)[N]) {
    u32 word, blended = 0;
    if (paint.source == NV12 || paint.source == P010) {
        word = in_eight_bits<2 * N>(paint, raw);
    } else {
        const u32 u = in_eight_bits<N>(paint, {raw.x, 0}), v = in_eight_bits<N>(paint, {raw.y, 0});
        word = (u & 0xFF) | (v & 0xFF) << 8 | (u & 0xFF00) << 8 | (v & 0xFF00) << 16;
    }
    UNROLL for (int i = 0; i < 2 * N; ++i) blended |= blend(word, i, keeps[i / 2], i % 2 ? vs[i / 2] : us[i / 2], 18);
    store_chroma<2 * N>(paint, x, y, blended);
}
