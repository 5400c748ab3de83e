// Every kernel by name: X(name, arguments, function). On the card it is called tandem_<name> and takes its arguments by value;
// over the emulation the same list gives a table by name (emulation/table.h). A kernel that is not here does not exist.
#pragma once

#include "cuda/kernels/arguments.h"
#include "cuda/kernels/absorb.cuh"
#include "cuda/kernels/attention.cuh"
#include "cuda/kernels/attention_tiles.cuh"
#include "cuda/kernels/cache.cuh"
#include "cuda/kernels/elementwise.cuh"
#include "cuda/kernels/experts.cuh"
#include "cuda/kernels/formats.h"
#include "cuda/kernels/greedy.cuh"
#include "cuda/kernels/linear.cuh"
#include "cuda/kernels/linear_tiles.cuh"
#include "cuda/kernels/rms_norm.cuh"
#include "cuda/kernels/rope.cuh"
#include "cuda/kernels/router.cuh"

#define TANDEM_CUDA_OF_FORMAT(X, format, Block)           \
  X(linear_##format##_m1, LinearArguments, linear_1<Block>) \
  X(linear_##format##_m4, LinearArguments, linear_4<Block>) \
  X(linear_##format##_m8, LinearArguments, linear_8<Block>) \
  X(linear_##format##_tiles, LinearArguments, linear_tiles_128<Block>) \
  X(experts_##format##_rows, ExpertsArguments, experts_rows<Block>) \
  X(experts_##format##_tiles, ExpertsArguments, experts_tiles<Block>) \
  X(linear_transposed_##format, LinearArguments, linear_transposed<Block>) \
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
  X(copy_heads, CopyHeadsArguments, copy_heads)                   \
  X(attention_part_f32, AttentionArguments, attention_part<float>) \
  X(attention_part_bf16, AttentionArguments, attention_part<uint16_t>) \
  X(attention_merge, AttentionArguments, attention_merge)         \
  X(attention_tiles_f32_64, AttentionArguments, attention_tiles<float, 64>) \
  X(attention_tiles_f32_128, AttentionArguments, attention_tiles<float, 128>) \
  X(attention_tiles_bf16_64, AttentionArguments, attention_tiles<uint16_t, 64>) \
  X(attention_tiles_bf16_128, AttentionArguments, attention_tiles<uint16_t, 128>) \
  X(expert_groups, ExpertGroupsArguments, expert_groups)          \
  X(gated, GatedArguments, gated)                                 \
  X(combine, CombineArguments, combine)                           \
  X(greedy, GreedyArguments, greedy)
