// Which weight formats the kernels read.
#pragma once

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
  F(X, iq4_xs, BlockIq4Xs)                                                                                                   \
  F(X, q2_k, BlockQ2K)                                                                                                       \
  F(X, q3_k, BlockQ3K)                                                                                                       \
  F(X, iq3_xxs, BlockIq3Xxs)                                                                                                 \
  F(X, iq3_s, BlockIq3S)                                                                                                     \
  F(X, iq2_xxs, BlockIq2Xxs)                                                                                                 \
  F(X, iq2_xs, BlockIq2Xs)                                                                                                   \
  F(X, iq2_s, BlockIq2S)                                                                                                     \
  F(X, iq1_s, BlockIq1S)                                                                                                     \
  F(X, iq1_m, BlockIq1M)
