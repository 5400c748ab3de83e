// The language kernels are written in: CUDA C++ for nvcc, and the same text over emulation/emulation.h for the host.
//
// A kernel is a function `static TANDEM_DEVICE void name(const Arguments&)`, at most 256 threads a block, blockDim.x a multiple of
// 32; list.h gives it its name on the card. Products accumulate in f32, nothing is compiled with fast math: the bounds of
// docs/reference/ops.md hold on the card as on the host.
#pragma once

#include <cstdint>

#ifdef __CUDACC__
#define TANDEM_DEVICE __device__ __forceinline__
#define TANDEM_UNROLL _Pragma("unroll")
#else
#include "cuda/emulation/emulation.h"
#define TANDEM_DEVICE inline
#define TANDEM_UNROLL
#endif

#include "quant/half.h"

namespace tandem::cuda {

using quant::bits_float;
using quant::float_bits;

static constexpr uint32_t kAllLanes = 0xffffffffu;

// Sum over the warp; every lane gets the same bits.
template <typename T>
static TANDEM_DEVICE T warp_sum(T value) {
  for (int step = 16; step > 0; step >>= 1) value += __shfl_xor_sync(kAllLanes, value, step);
  return value;
}

// Largest of the warp; a nan is passed over.
static TANDEM_DEVICE float warp_max(float value) {
  for (int step = 16; step > 0; step >>= 1) {
    const float other = __shfl_xor_sync(kAllLanes, value, step);
    value = other > value || value != value ? other : value;
  }
  return value;
}

// Sum over the block; every thread gets the same bits. `memory`: one T a warp, free again after the call.
template <typename T>
static TANDEM_DEVICE T block_sum(T value, T* memory) {
  value = warp_sum(value);
  const int warps = static_cast<int>(blockDim.x >> 5);
  if (warps == 1) return value;
  if ((threadIdx.x & 31) == 0) memory[threadIdx.x >> 5] = value;
  __syncthreads();
  T sum = memory[0];
  for (int w = 1; w < warps; w++) sum += memory[w];
  __syncthreads();
  return sum;
}

static TANDEM_DEVICE bool aligned(const void* at, int bytes) { return reinterpret_cast<uintptr_t>(at) % static_cast<uintptr_t>(bytes) == 0; }

#ifndef __CUDACC__
static inline void check_aligned(const void* at, int bytes) {
  if (!aligned(at, bytes)) emulation::Machine::current().fail("a load of " + std::to_string(bytes) + " bytes is aligned to them");
}
#else
static TANDEM_DEVICE void check_aligned(const void*, int) {}
#endif

// 16 bytes from an address that is a multiple of A. Weights are read once a pass: past the first cache.
template <int A>
static TANDEM_DEVICE uint4 load_16(const uint8_t* at) {
  check_aligned(at, A);
  uint4 v;
#ifndef __CUDA_ARCH__
  memcpy(&v, at, 16);
#else
  if constexpr (A == 16) {
    asm("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];" : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "l"(at));
  } else if constexpr (A == 8) {
    const uint2 low = *reinterpret_cast<const uint2*>(at), high = *reinterpret_cast<const uint2*>(at + 8);
    v.x = low.x, v.y = low.y, v.z = high.x, v.w = high.y;
  } else {
    uint32_t words[4];
    for (int i = 0; i < 4; i++) {
      if constexpr (A == 4) {
        words[i] = *reinterpret_cast<const uint32_t*>(at + 4 * i);
      } else if constexpr (A == 2) {
        const uint16_t* halves = reinterpret_cast<const uint16_t*>(at + 4 * i);
        words[i] = halves[0] | static_cast<uint32_t>(halves[1]) << 16;
      } else {
        words[i] = quant::load_u32(at + 4 * i);
      }
    }
    v.x = words[0], v.y = words[1], v.z = words[2], v.w = words[3];
  }
#endif
  return v;
}

static TANDEM_DEVICE float4 load_float4(const float* at) {
  check_aligned(at, 16);
  return *reinterpret_cast<const float4*>(at);
}

// 0 … 2^23 as a float: one logic operation and one addition, where a conversion takes a slow unit.
static TANDEM_DEVICE float small_float(uint32_t value) { return bits_float(0x4b000000u | value) - 8388608.0f; }

// An int8 code in the low byte.
static TANDEM_DEVICE float signed_float(uint32_t byte) { return bits_float(0x4b000000u | ((byte & 255) ^ 128)) - 8388736.0f; }

static TANDEM_DEVICE float half_float(uint16_t half) {
#ifdef __CUDA_ARCH__
  float value;
  asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(half));
  return value;
#else
  return quant::f16_to_f32(half);
#endif
}

// Byte i of the result is the byte of b‖a that nibble i of `selector` (0 … 7) names.
static TANDEM_DEVICE uint32_t byte_permute(uint32_t a, uint32_t b, uint32_t selector) {
#ifdef __CUDA_ARCH__
  return __byte_perm(a, b, selector);
#else
  const uint64_t both = static_cast<uint64_t>(b) << 32 | a;
  uint32_t result = 0;
  for (int i = 0; i < 4; i++) result |= static_cast<uint32_t>(both >> (8 * (selector >> (4 * i) & 7)) & 255) << (8 * i);
  return result;
#endif
}

// Byte i of the result by nibble i of `selector`: bits 0 … 2 name a byte of b‖a; where bit 3 is set it is that byte's sign, eight times: what
// __byte_perm masks out.
static TANDEM_DEVICE uint32_t signs_permute(uint32_t a, uint32_t b, uint32_t selector) {
#ifdef __CUDA_ARCH__
  uint32_t result;
  asm("prmt.b32 %0, %1, %2, %3;" : "=r"(result) : "r"(a), "r"(b), "r"(selector));
  return result;
#else
  uint32_t result = 0;
  for (int i = 0; i < 4; i++) {
    const uint32_t nibble = selector >> (4 * i) & 15, byte = byte_permute(a, b, nibble) & 255;
    result |= (nibble & 8 ? (byte & 128 ? 255u : 0u) : byte) << (8 * i);
  }
  return result;
#endif
}

// A product that is rounded by itself. Compilers for cards join a product with the sum that follows: one rounding less, which sums gain by,
// but decoded weights would have other bits than those of native/quant.
static TANDEM_DEVICE float rounded_product(float a, float b) {
#ifdef __CUDA_ARCH__
  return __fmul_rn(a, b);
#else
  return a * b;
#endif
}

// 2^value, off by 2^-22 of it at most; results below 2^-126 become 0.
static TANDEM_DEVICE float approximate_exp2(float value) {
#ifdef __CUDA_ARCH__
  float result;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(value));
  return result;
#else
  return exp2f(value);
#endif
}

// Two floats to bf16, nearest even; the first in the low half.
static TANDEM_DEVICE uint32_t pack_bf16(float low, float high) {
#ifdef __CUDA_ARCH__
  uint32_t packed;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(high), "f"(low));
  return packed;
#else
  return quant::f32_to_bf16(low) | static_cast<uint32_t>(quant::f32_to_bf16(high)) << 16;
#endif
}

}  // namespace tandem::cuda
