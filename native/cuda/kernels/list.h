// Every kernel by name: X(name, arguments, function). On the card it is called tandem_<name> and takes its arguments by value;
// over the emulation the same list gives a table by name (emulation/table.h). A kernel that is not here does not exist.
#pragma once

#include "cuda/kernels/arguments.h"
#include "cuda/kernels/absorb.cuh"
#include "cuda/kernels/attention.cuh"
#include "cuda/kernels/attention_group.cuh"
#include "cuda/kernels/attention_tiles.cuh"
#include "cuda/kernels/cache.cuh"
#include "cuda/kernels/elementwise.cuh"
#include "cuda/kernels/expert_groups.cuh"
#include "cuda/kernels/experts.cuh"
#include "cuda/kernels/experts_rows.cuh"
#include "cuda/kernels/experts_tiles.cuh"
#include "cuda/kernels/formats.h"
#include "cuda/kernels/greedy.cuh"
#include "cuda/kernels/linear.cuh"
#include "cuda/kernels/linear_tiles.cuh"
#include "cuda/kernels/mla_part.cuh"
#include "cuda/kernels/mla_tiles.cuh"
#include "cuda/kernels/pieces_codebooks.cuh"
#include "cuda/kernels/rms_norm.cuh"
#include "cuda/kernels/rope.cuh"
#include "cuda/kernels/rounded_rows.cuh"
#include "cuda/kernels/router.cuh"
#include "cuda/kernels/sample.cuh"

#define TANDEM_CUDA_OF_FORMAT(X, format, Block)           \
  X(linear_##format##_m1, LinearArguments, linear_1<Block>) \
  X(linear_##format##_m8, LinearArguments, linear_8<Block>) \
  X(linear_##format##_tiles, LinearTilesArguments, linear_tiles_wide<Block>) \
  X(linear_##format##_tiles_small, LinearTilesArguments, linear_tiles_small<Block>) \
  X(experts_##format##_rows, ExpertsArguments, experts_rows<Block>) \
  X(experts_##format##_tiles, ExpertsArguments, experts_tiles<Block>) \
  X(linear_transposed_##format, LinearArguments, linear_transposed<Block>) \
  X(transpose_##format, TransposeArguments, transpose<Block>) \
  X(embed_##format, EmbedArguments, embed<Block>)

// Of every type of a cache.
#define TANDEM_CUDA_OF_CACHE(X, name, T)                              \
  X(cache_append_##name, CacheAppendArguments, cache_append<T>)       \
  X(attention_part_##name, AttentionArguments, attention_part<T>)     \
  X(attention_tiles_##name##_64, AttentionArguments, attention_tiles<T, 64, 64>) \
  X(attention_tiles_##name##_128, AttentionArguments, attention_tiles<T, 128, 128>) \
  X(mla_gather_##name, MlaChunkArguments, mla_gather<T>)

#define TANDEM_CUDA_KERNELS(X)                                    \
  TANDEM_CUDA_FORMATS(TANDEM_CUDA_OF_FORMAT, X)                   \
  X(add, ElementwiseArguments, add)                               \
  X(glu, ElementwiseArguments, glu)                               \
  X(gather_rows, GatherArguments, gather_rows)                    \
  X(rms_norm, RmsNormArguments, rms_norm)                         \
  X(rope, RopeArguments, rope)                                    \
  X(router, RouterArguments, router)                              \
  X(rank_experts, RankExpertsArguments, rank_experts)             \
  TANDEM_CUDA_OF_CACHE(X, f32, float)                             \
  TANDEM_CUDA_OF_CACHE(X, bf16, uint16_t)                         \
  TANDEM_CUDA_OF_CACHE(X, e4m3, uint8_t)                          \
  X(attention_group_bf16_64, AttentionArguments, attention_group<uint16_t, 64>)   \
  X(attention_group_bf16_128, AttentionArguments, attention_group<uint16_t, 128>) \
  X(attention_group_e4m3_64, AttentionArguments, attention_group<uint8_t, 64>)    \
  X(attention_group_e4m3_128, AttentionArguments, attention_group<uint8_t, 128>)  \
  X(mla_part_bf16, AttentionArguments, mla_part<uint16_t>)        \
  X(mla_part_e4m3, AttentionArguments, mla_part<uint8_t>)         \
  X(mla_tiles, MlaChunkArguments, mla_tiles)                      \
  X(copy_heads, CopyHeadsArguments, copy_heads)                   \
  X(attention_merge, AttentionArguments, attention_merge)         \
  X(round_rows, RoundRowsArguments, round_rows)                   \
  X(expert_groups, ExpertGroupsArguments, expert_groups)          \
  X(gated, GatedArguments, gated)                                 \
  X(combine, CombineArguments, combine)                           \
  X(greedy, GreedyArguments, greedy)                              \
  X(sample, SampleArguments, sample)                              \
  X(logprobs, SampleArguments, logprobs)
