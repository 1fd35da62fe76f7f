// Both kernels for the host. Each has its own words, so each has a namespace.
#include "shim.h"
#include "common.cuh"
namespace preprocessing {
#include "preprocess.cu"
}
namespace postprocessing {
#include "postprocess.cu"
}

extern "C" float shim_half_to_float(unsigned short bits) { return half_to_float(bits); }
extern "C" unsigned short shim_float_to_half(float value) { return float_to_half(value); }
