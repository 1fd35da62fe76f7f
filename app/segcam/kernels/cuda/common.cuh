// What both kernels share. CUDA C++17 without any header, so that NVRTC needs none; the same text is plain C++ for the
// tests, whose shim (included first) supplies the few names that are CUDA's.
//
// Results equal the NumPy references bit for bit, so no product and sum may become one rounding: compile with
// -fmad=false (NVRTC, nvcc) or -ffp-contract=off (C++). In the PTX every operation then carries .rn, which keeps the
// driver's compiler from contracting as well.
#pragma once

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

#ifdef __CUDACC__

#define DEVICE __device__ __forceinline__
#define UNROLL _Pragma("unroll")
// 256 threads in a block, in all kernels; few enough registers that four blocks share a processor.
#define KERNEL(name, parameters, ...) \
    extern "C" __global__ void __launch_bounds__(256, 4) name parameters { __VA_ARGS__ }
#define SHARED(type, name) __shared__ type name
// A phase is run by all threads of a block; what one phase writes to shared memory, the next reads after a BARRIER.
#define EACH_THREAD
#define BARRIER __syncthreads();

DEVICE float half_to_float(u16 bits) {
    float value;
    asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(bits));
    return value;
}

DEVICE u16 float_to_half(float value) {
    u16 bits;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(value));
    return bits;
}

// A line of memory (128 bytes) that is read later is asked for now; nothing waits for it.
DEVICE void prefetch(const u8* at) {
    asm volatile("prefetch.global.L2 [%0];" ::"l"(at));
}

#endif

// The two neighbours of one bilinear sample on an axis, and their weights: geometry.Taps.
struct alignas(16) Tap {
    int first, second;
    float weight_first, weight_second;
};

DEVICE Tap tap_at(const Tap* taps, int i) {
    const int4 raw = *reinterpret_cast<const int4*>(taps + i);
    return {raw.x, raw.y, __int_as_float(raw.z), __int_as_float(raw.w)};
}

DEVICE int least(int a, int b) {
    return a < b ? a : b;
}

// Row `row` of a plane whose rows lie `pitch` bytes apart.
template <class Byte>
DEVICE Byte* row_of(Byte* plane, int row, int pitch) {
    return plane + static_cast<u64>(row) * static_cast<u32>(pitch);
}

// N bytes, 2 or a multiple of 4, from where so many bytes go at once.
template <int N>
DEVICE void load_bytes(const u8* from, u32 (&values)[N]) {
    constexpr int WORD = N == 2 ? 2 : 4;
    UNROLL for (int i = 0; i < N; i += WORD) {
        const u32 word = N == 2 ? *reinterpret_cast<const u16*>(from) : *reinterpret_cast<const u32*>(from + i);
        UNROLL for (int j = 0; j < WORD; ++j) values[i + j] = word >> 8 * j & 255;
    }
}

template <int N>
DEVICE void store_bytes(u8* to, const u32 (&values)[N]) {
    constexpr int WORD = N == 2 ? 2 : 4;
    UNROLL for (int i = 0; i < N; i += WORD) {
        u32 word = 0;
        UNROLL for (int j = 0; j < WORD; ++j) word |= values[i + j] << 8 * j;
        if (N == 2) {
            *reinterpret_cast<u16*>(to) = static_cast<u16>(word);
        } else {
            *reinterpret_cast<u32*>(to + i) = word;
        }
    }
}
