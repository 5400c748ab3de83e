// Every kernel by name: X(name, arguments, function). On the card it is called tandem_<name> and takes its arguments by value;
// over the emulation the same list gives a table by name (emulation/table.h). A kernel that is not here does not exist.
#pragma once

#include "cuda/kernels/arguments.h"
#include "cuda/kernels/cache.cuh"
#include "cuda/kernels/elementwise.cuh"
#include "cuda/kernels/greedy.cuh"
#include "cuda/kernels/linear.cuh"
#include "cuda/kernels/rms_norm.cuh"
#include "cuda/kernels/rope.cuh"
#include "cuda/kernels/router.cuh"

// Weight formats that kernels read: F(X, name, block).
#define TANDEM_CUDA_FORMATS(F, X)                                                                                            \
  F(X, f32, F32)                                                                                                            \
  F(X, f16, F16)                                                                                                            \
  F(X, bf16, Bf16)                                                                                                          \
  F(X, f8_e4m3, F8E4m3)                                                                                                     \
  F(X, q8_0, BlockQ8_0)                                                                                                     \
  F(X, q4_0, BlockQ4_0)                                                                                                     \
  F(X, q4_1, BlockQ4_1)                                                                                                     \
  F(X, q5_0, BlockQ5_0)                                                                                                     \
  F(X, q5_1, BlockQ5_1)                                                                                                     \
  F(X, iq4_nl, BlockIq4Nl)                                                                                                  \
  F(X, mxfp4, BlockMxfp4)                                                                                                   \
  F(X, mxfp4_g32, BlockMxfp4G32)                                                                                            \
  F(X, int4_g32, BlockInt4G32)                                                                                              \
  F(X, q4_k, BlockQ4K)                                                                                                      \
  F(X, q5_k, BlockQ5K)                                                                                                      \
  F(X, q6_k, BlockQ6K)                                                                                                      \
  F(X, iq4_xs, BlockIq4Xs)

#define TANDEM_CUDA_OF_FORMAT(X, format, Block)           \
  X(linear_##format##_m1, LinearArguments, linear_1<Block>) \
  X(linear_##format##_m4, LinearArguments, linear_4<Block>) \
  X(linear_##format##_m8, LinearArguments, linear_8<Block>) \
  X(embed_##format, EmbedArguments, embed<Block>)

#define TANDEM_CUDA_KERNELS(X)                                    \
  TANDEM_CUDA_FORMATS(TANDEM_CUDA_OF_FORMAT, X)                   \
  X(add, ElementwiseArguments, add)                               \
  X(glu, ElementwiseArguments, glu)                               \
  X(gather_rows, GatherArguments, gather_rows)                    \
  X(rms_norm, RmsNormArguments, rms_norm)                         \
  X(rope, RopeArguments, rope)                                    \
  X(router, RouterArguments, router)                              \
  X(cache_append_f32, CacheAppendArguments, cache_append<float>)  \
  X(cache_append_bf16, CacheAppendArguments, cache_append<uint16_t>) \
  X(greedy, GreedyArguments, greedy)
