// The types that scores come in, and which class leads at a point of their grid.
#pragma once

#include "common.cuh"

// No class leads safely. Ids of classes end at 254.
constexpr u8 UNSURE = 255;

struct Float {
    typedef float Type;
    DEVICE static float value(float score) { return score; }
};

struct Half {
    typedef u16 Type;
    DEVICE static float value(u16 bits) { return half_to_float(bits); }
};

struct Bfloat {
    typedef u16 Type;
    DEVICE static float value(u16 bits) { return __int_as_float(static_cast<int>(static_cast<u32>(bits) << 16)); }
};

DEVICE bool is_nan(float value) {
    return value != value;
}

// The class that leads at a point, or UNSURE: see kernels/cpu/points.py.
template <class Score, int CLASSES>
DEVICE u8 key_of(const typename Score::Type* point, u64 stride, int classes) {
    float best = Score::value(point[0]), before = best;
    int winner = 0;
    bool odd = is_nan(best);
#pragma unroll(CLASSES ? CLASSES : 4)
    for (int k = 1; k < (CLASSES ? CLASSES : classes); ++k) {
        const float value = Score::value(point[k * stride]);
        odd |= is_nan(value);
        // What led before a new best is the highest score of the classes below it in index.
        if (value > best) {
            before = best;
            best = value;
            winner = k;
        }
    }
    const float size = best < 0 ? -best : best;
    const float below = best - (size * 3.814697265625e-06f + 1e-37f);
    return !odd && size <= 3.4e38f && (winner == 0 || before <= below) ? static_cast<u8>(winner) : UNSURE;
}
