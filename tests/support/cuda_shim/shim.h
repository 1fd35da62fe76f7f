// CUDA's names for plain C++: the kernels of app/segcam/kernels/cuda run over their whole grid on the host.
//
// Blocks run one after the other; in a block, each phase (EACH_THREAD) is run for all threads before the next begins,
// as barriers have it on a GPU, in rising or falling order: what depends on the order within a phase is a race. Shared
// memory is filled with rubbish before each block. A thread is the only active one of its warp, which CUDA allows too.
#pragma once

#include <cstdint>
#include <cstring>
#include <cmath>
#include <cstddef>
#include <utility>

#define DEVICE inline
#define UNROLL
#define BARRIER
#define EACH_THREAD for (shim::Threads threads; threads.next();)
#define SHARED(type, name)                          \
    type name;                                      \
    std::memset(static_cast<void*>(&name), 0xA5, sizeof name)

struct int4 {
    alignas(16) int x;
    int y, z, w;
};
struct alignas(16) float4 {
    float x, y, z, w;
};
struct alignas(8) uint2 {
    unsigned x, y;
};

namespace shim {
struct Index {
    unsigned x, y, z;
};
}

static thread_local shim::Index threadIdx, blockIdx;

namespace shim {
static thread_local unsigned block_threads;
static thread_local bool falling;

struct Threads {
    unsigned done = 0;
    bool next() {
        if (done == block_threads) return false;
        threadIdx.x = falling ? block_threads - 1 - done : done;
        ++done;
        return true;
    }
};

// The value of an argument, from where cuLaunchKernel would read it.
template <class T>
T argument(const void* at) {
    T value;
    std::memcpy(&value, at, sizeof value);
    return value;
}

template <class... P, std::size_t... I>
void call(void (*kernel)(P...), const void* const* arguments, std::index_sequence<I...>) {
    kernel(argument<P>(arguments[I])...);
}

template <class... P>
void launch(void (*kernel)(P...), unsigned grid_x, unsigned grid_y, unsigned threads, bool backwards,
            const void* const* arguments) {
    block_threads = threads;
    falling = backwards;
    for (unsigned i = 0; i < grid_x * grid_y; ++i) {
        const unsigned block = backwards ? grid_x * grid_y - 1 - i : i;
        blockIdx = {block % grid_x, block / grid_x, 0};
        call(kernel, arguments, std::index_sequence_for<P...>());
    }
}

// Sizes of the parameters in bytes, ended by 0.
template <class... P>
const int* sizes(void (*)(P...)) {
    static const int all[] = {static_cast<int>(sizeof(P))..., 0};
    return all;
}
}

#define KERNEL(name, parameters, ...)                                                                             \
    static void name##_block parameters { __VA_ARGS__ }                                                           \
    extern "C" void name(unsigned grid_x, unsigned grid_y, unsigned threads, int backwards,                       \
                         const void* const* arguments) {                                                          \
        shim::launch(name##_block, grid_x, grid_y, threads, backwards != 0, arguments);                           \
    }                                                                                                             \
    extern "C" const int* name##_sizes() { return shim::sizes(name##_block); }

inline float __int_as_float(int bits) {
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

inline unsigned bits_of(float value) {
    unsigned bits;
    std::memcpy(&bits, &value, sizeof bits);
    return bits;
}

inline int __float2int_rn(float value) { return static_cast<int>(std::nearbyint(value)); }
inline int __popc(unsigned bits) { return __builtin_popcount(bits); }
inline int __ffs(int bits) { return __builtin_ffs(bits); }
inline unsigned __activemask() { return 1u << threadIdx.x % 32; }
inline unsigned __match_any_sync(unsigned mask, unsigned) { return mask & __activemask(); }

// Read, so that sanitizers see addresses that are not the picture's.
inline void prefetch(const unsigned char* at) {
    const volatile unsigned char seen = *at;
    static_cast<void>(seen);
}

inline unsigned atomicAdd(unsigned* at, unsigned value) {
    const unsigned before = *at;
    *at += value;
    return before;
}

// IEEE 754 binary16 in whole numbers, so that nothing is asked of the compiler.
inline float half_to_float(unsigned short half) {
    const unsigned sign = (half & 0x8000u) << 16, exponent = half >> 10 & 31, fraction = half & 1023;
    if (exponent == 31) return __int_as_float(static_cast<int>(sign | 0x7F800000u | fraction << 13));
    if (exponent) return __int_as_float(static_cast<int>(sign | (exponent + 112) << 23 | fraction << 13));
    const float small = static_cast<float>(fraction) * 5.9604644775390625e-08f; // 2**-24
    return sign ? -small : small;
}

inline unsigned short float_to_half(float value) {
    const unsigned bits = bits_of(value), sign = bits >> 16 & 0x8000u, size = bits & 0x7FFFFFFFu;
    if (size > 0x7F800000u) return 0x7FFF;
    if (size >= 0x47800000u) return static_cast<unsigned short>(sign | 0x7C00u);
    // How many bits go: 13, and more below the smallest normal number; ties to even, and carries run into the exponent.
    const int exponent = static_cast<int>(size >> 23);
    if (exponent < 102) return static_cast<unsigned short>(sign);
    const int lost = exponent < 113 ? 126 - exponent : 13;
    const unsigned all = exponent < 113 ? (size & 0x7FFFFFu) | 0x800000u : size - (112u << 23);
    const unsigned kept = all >> lost, rest = all & ((1u << lost) - 1), half = 1u << (lost - 1);
    return static_cast<unsigned short>(sign | (kept + (rest > half || (rest == half && (kept & 1)))));
}
