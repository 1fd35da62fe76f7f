/* Depthwise 5 x 5 convolution and its gradients over channels-last memory (N, H, W, C), stride 1, size kept.
 *
 * Sixteen channels at a time: they are gathered into a padded float32 plane that a core's second-level cache holds,
 * where every tap is a fixed distance away and the 25 weights (or their 25 sums) stay in registers.
 *
 * Work is cut into units, each thread takes the next from a counter. Pictures are float32 or bfloat16 (half != 0);
 * weights and their gradients are float32, (25, C).
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { LANES = 16, TAPS = 5 };
typedef float lanes __attribute__((vector_size(LANES * 4)));

struct shape {
    int32_t count, height, width, channels, dilation, half;
};

static void gather(lanes *plane, const void *picture, struct shape s, int n, int first, int reach)
{
    int64_t wide = s.width + 2 * reach, lanes_here = s.channels - first < LANES ? s.channels - first : LANES;
    memset(plane, 0, sizeof(lanes) * wide * reach);
    memset(plane + wide * (reach + s.height), 0, sizeof(lanes) * wide * reach);
    for (int64_t y = 0; y < s.height; y++) {
        lanes *line = plane + (y + reach) * wide;
        memset(line, 0, sizeof(lanes) * reach);
        memset(line + reach + s.width, 0, sizeof(lanes) * reach);
        int64_t at = (((int64_t)n * s.height + y) * s.width) * s.channels + first;
        for (int64_t x = 0; x < s.width; x++, at += s.channels) {
            uint32_t bits[LANES] = {0};
            if (s.half) {
                const uint16_t *from = (const uint16_t *)picture + at;
                if (lanes_here == LANES)
                    for (int k = 0; k < LANES; k++) bits[k] = (uint32_t)from[k] << 16;
                else
                    for (int k = 0; k < lanes_here; k++) bits[k] = (uint32_t)from[k] << 16;
            } else if (lanes_here == LANES) {
                memcpy(bits, (const float *)picture + at, sizeof bits);
            } else {
                memcpy(bits, (const float *)picture + at, sizeof(float) * lanes_here);
            }
            memcpy(line + reach + x, bits, sizeof(lanes));
        }
    }
}

static void put(void *picture, int64_t at, lanes value, int64_t lanes_here, int half)
{
    if (!half) {
        memcpy((float *)picture + at, &value, sizeof(float) * lanes_here);
        return;
    }
    uint32_t bits[LANES];
    uint16_t rounded[LANES];
    memcpy(bits, &value, sizeof bits);
    /* To the nearest, ties to even. */
    for (int k = 0; k < LANES; k++) rounded[k] = (uint16_t)((bits[k] + 0x7fff + (bits[k] >> 16 & 1)) >> 16);
    if (lanes_here == LANES)
        memcpy((uint16_t *)picture + at, rounded, sizeof rounded);
    else
        memcpy((uint16_t *)picture + at, rounded, sizeof(uint16_t) * lanes_here);
}

static void convolve(void *out, const lanes *plane, const float *weight, int turned, struct shape s, int n, int first)
{
    int64_t reach = 2 * s.dilation, wide = s.width + 2 * reach;
    int64_t lanes_here = s.channels - first < LANES ? s.channels - first : LANES;
    lanes w[TAPS * TAPS];
    memset(w, 0, sizeof w);
    for (int t = 0; t < TAPS * TAPS; t++)
        memcpy(w + t, weight + (turned ? TAPS * TAPS - 1 - t : t) * s.channels + first, sizeof(float) * lanes_here);
    for (int64_t y = 0; y < s.height; y++)
        for (int64_t x = 0; x < s.width; x++) {
            const lanes *from = plane + y * wide + x;
            /* Two sums, so that additions need not wait for one another. */
            lanes even = {0}, odd = {0};
            for (int i = 0; i < TAPS; i++)
                for (int j = 0; j < TAPS; j++) {
                    lanes product = from[(i * wide + j) * s.dilation] * w[i * TAPS + j];
                    if ((i + j) & 1)
                        odd += product;
                    else
                        even += product;
                }
            put(out, (((int64_t)n * s.height + y) * s.width + x) * s.channels + first, even + odd, lanes_here, s.half);
        }
}

/* sums[t] += sum over the picture of gradient * what tap t saw; both are padded planes. */
static void correlate(lanes *sums, const lanes *plane, const lanes *gradient, struct shape s)
{
    int64_t reach = 2 * s.dilation, wide = s.width + 2 * reach;
    for (int i = 0; i < TAPS; i++) {
        lanes a = {0}, b = {0}, c = {0}, d = {0}, e = {0};
        for (int64_t y = 0; y < s.height; y++) {
            const lanes *from = plane + (y + i * s.dilation) * wide, *given = gradient + (y + reach) * wide + reach;
            for (int64_t x = 0; x < s.width; x++) {
                lanes g = given[x];
                a += g * from[x];
                b += g * from[x + s.dilation];
                c += g * from[x + 2 * s.dilation];
                d += g * from[x + 3 * s.dilation];
                e += g * from[x + 4 * s.dilation];
            }
        }
        sums[i * TAPS] += a;
        sums[i * TAPS + 1] += b;
        sums[i * TAPS + 2] += c;
        sums[i * TAPS + 3] += d;
        sums[i * TAPS + 4] += e;
    }
}

static lanes *make_plane(struct shape s)
{
    int64_t reach = 2 * s.dilation;
    return aligned_alloc(sizeof(lanes), sizeof(lanes) * (s.height + 2 * reach) * (s.width + 2 * reach));
}

/* 0: done; 1: out of memory. A unit is sixteen channels of one picture. */
int depthwise_forward(int32_t *counter, struct shape *shape, const void *x, const float *weight, void *out)
{
    struct shape s = *shape;
    int blocks = (s.channels + LANES - 1) / LANES, unit;
    lanes *plane = make_plane(s);
    if (!plane) return 1;
    while ((unit = __atomic_fetch_add(counter, 1, __ATOMIC_RELAXED)) < s.count * blocks) {
        int n = unit / blocks, first = unit % blocks * LANES;
        gather(plane, x, s, n, first, 2 * s.dilation);
        convolve(out, plane, weight, 0, s, n, first);
    }
    free(plane);
    return 0;
}

/* A unit is sixteen channels of all pictures: the weight's sums are nobody else's, and the order is always the same. */
int depthwise_backward(int32_t *counter, struct shape *shape, const void *x, const float *weight, const void *gradient,
                       void *of_x, float *of_weight)
{
    struct shape s = *shape;
    int blocks = (s.channels + LANES - 1) / LANES, unit;
    lanes *plane = make_plane(s), *given = make_plane(s);
    if (!plane || !given) {
        free(plane);
        free(given);
        return 1;
    }
    while ((unit = __atomic_fetch_add(counter, 1, __ATOMIC_RELAXED)) < blocks) {
        int first = unit * LANES, lanes_here = s.channels - first < LANES ? s.channels - first : LANES;
        lanes sums[TAPS * TAPS];
        memset(sums, 0, sizeof sums);
        for (int n = 0; n < s.count; n++) {
            gather(plane, x, s, n, first, 2 * s.dilation);
            gather(given, gradient, s, n, first, 2 * s.dilation);
            correlate(sums, plane, given, s);
            convolve(of_x, given, weight, 1, s, n, first);
        }
        for (int t = 0; t < TAPS * TAPS; t++)
            memcpy(of_weight + t * s.channels + first, sums + t, sizeof(float) * lanes_here);
    }
    free(plane);
    free(given);
    return 0;
}
