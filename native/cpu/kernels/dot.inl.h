// Dot products of weight rows with rounded activations: the table that `linear` and `experts` read, and the generic path.
//
// The law of this folder: an element depends on its weight row and its activation row alone. A tile of R × M rows keeps one
// set of accumulators per element and adds in the same order whatever R and M are, so that batch, chunk, thread and place
// in a tile never show in the bits. Instruction sets may differ in the last ones.
#pragma once

#include <cstdint>
#include <cstring>

#include "cpu/kernels/decode.inl.h"
#include "cpu/kernels/quantize.inl.h"

namespace tandem::TANDEM_ISA_NAMESPACE {

struct WeightRow {
  const uint8_t* data;
  const uint8_t* scales;  // of this row as stored, aligned to nothing; where the format has scales apart
  int64_t ahead;        // bytes from here to what is needed soon: tiles fetch it into the cache as they go
};

constexpr int kTileRows = 4;    // most weight rows of a tile
constexpr int kTileTokens = 4;  // most activation rows of a tile

// out[r * M + m] = w[r] · x[m] over k columns, for as many rows and tokens as the tile was made for.
using DotTile = void (*)(const WeightRow* w, const ActivationRow* x, int64_t k, float* out);

// Tiles of one weight format with one activation format. Prefers `rows[m]` weight rows at a time for m + 1 tokens: for one
// token, two streams where memory is the limit and four where unpacking is (measured on Zen 4).
struct DotKernel {
  int rows[kTileTokens];
  DotTile many[kTileTokens];  // rows[m] rows × (m + 1) tokens
  DotTile one[kTileTokens];   // 1 row × (m + 1) tokens
};

// Null where this ISA has no kernel of its own: then `dot_generic` serves. Defined in dot_floats, dot_q32, dot_q256.
const DotKernel* dot_floats(WeightFormat format);
const DotKernel* dot_q32(WeightFormat format);
const DotKernel* dot_q256(WeightFormat format);

static inline const DotKernel* find_dot(WeightFormat format, Activation activation) {
  switch (activation) {
    case Activation::f32:
    case Activation::bf16: return dot_floats(format);
    case Activation::q8_32: return dot_q32(format);
    case Activation::q8_256: return dot_q256(format);
  }
  return nullptr;
}

// Many tokens with one weight format: `rows` weight rows at a time are unpacked once, a piece of K at a time, into a panel that
// stays in the first-level cache while all tokens pass. Gives the bits of the tiles.
constexpr int kPanelRows = 64;  // most rows of a panel
struct PanelKernel {
  int rows;
  int from;  // faster than the tiles from that many tokens on (measured)
  // out[t * stride + r] = w[r] · x[t], r < count, t < tokens. count <= rows: what is missing is not read. What lies
  // w->ahead bytes behind each row is fetched meanwhile.
  void (*multiply)(const WeightRow* w, int count, const ActivationRow* x, int64_t tokens, int64_t k, float* out, int64_t stride);
};

// Null where there is none. Defined in panel_q32, panel_q256.
const PanelKernel* panel_q32(WeightFormat format);
const PanelKernel* panel_q256(WeightFormat format);

static inline const PanelKernel* find_panel(WeightFormat format, Activation activation) {
  if (activation == Activation::q8_32) return panel_q32(format);
  if (activation == Activation::q8_256) return panel_q256(format);
  return nullptr;
}

// Any weight format with any activation: both as f32, in chunks on the stack. 16 accumulators per element.
static inline void dot_generic(WeightFormat format, const WeightRow& w, Activation activation, const ActivationRow* x, int tokens,
                               int64_t k, float* out) {
  constexpr int64_t kChunk = 256;  // whole blocks of every format
  constexpr int kLanesOf = 16;
  alignas(64) float weights[kChunk], rounded[kChunk], sums[kTileTokens][kLanesOf] = {};
  const quant::FormatInfo& info = format_info(format);
  for (int64_t i = 0; i < k; i += kChunk) {
    const int64_t n = k - i < kChunk ? k - i : kChunk;
    const uint8_t* scales = info.scales_at(w.scales, i);
    decode_row(format, w.data + i / info.block_size * info.block_bytes, weights, n, scales);
    for (int m = 0; m < tokens; m++) {
      const float* values = x[m].values ? x[m].values + i : rounded;
      if (!x[m].values) {
        const int64_t block = activation_block(activation);
        for (int64_t j = 0; j < n; j++) rounded[j] = x[m].scales[(i + j) / block] * static_cast<float>(x[m].codes[i + j]);
      }
      int64_t j = 0;
      for (; j + kLanesOf <= n; j += kLanesOf) {
        for (int l = 0; l < kLanesOf; l++) sums[m][l] += weights[j + l] * values[j + l];
      }
      for (int l = 0; j < n; j++, l++) sums[m][l] += weights[j] * values[j];
    }
  }
  for (int m = 0; m < tokens; m++) {
    for (int width = kLanesOf / 2; width > 0; width /= 2) {
      for (int l = 0; l < width; l++) sums[m][l] += sums[m][l + width];
    }
    out[m] = sums[m][0];
  }
}

static inline bool is_finite(float x) { return (quant::float_bits(x) & 0x7f800000u) != 0x7f800000u; }

static inline bool are_finite(const float* x, int count) {
  uint32_t worst = 0;
  for (int i = 0; i < count; i++) worst |= (quant::float_bits(x[i]) & 0x7f800000u) == 0x7f800000u;
  return worst == 0;
}

// What is needed to multiply rows of one weight with rounded activations.
struct Dot {
  const BoundWeight* weight;
  WeightFormat format;
  Activation activation;
  const DotKernel* kernel;
  const PanelKernel* panel;

  Dot(const BoundWeight* bound, Activation rounding)
      : weight(bound), format(weight_format(*bound->format)), activation(rounding), kernel(find_dot(format, rounding)),
        panel(kernel ? find_panel(format, rounding) : nullptr) {}

  // Rows are a few KB, too short for the processor to notice the streams of a tile. So each tile fetches the one that
  // begins kAhead bytes or more behind it: at 25 GB/s, two to three memory latencies.
  static constexpr int64_t kAhead = 8192;

  WeightRow row(int64_t matrix, int64_t n) const {
    const int64_t tile = kTileRows * weight->row_bytes;
    return {weight->row(matrix, n), weight->scales ? weight->row_scales(matrix, n) : nullptr,
            (kAhead + tile - 1) / tile * tile};
  }

  // d_w · d_x may overflow where the products of the values do not, and inf · 0 is not what they add up to: an element that
  // is not finite takes the long way, unless a block of its activation is NaN already.
  __attribute__((noinline, cold)) float special(const WeightRow& w, const ActivationRow& x, float value) const {
    if (x.scales) {
      const int64_t blocks = weight->columns / activation_block(activation);
      for (int64_t b = 0; b < blocks; b++) {
        if (x.scales[b] != x.scales[b]) return x.scales[b];
      }
    }
    dot_generic(format, w, activation, &x, 1, weight->columns, &value);
    return value;
  }

  // Rows worth handing out together.
  int64_t height(int64_t tokens) const { return panel && tokens >= panel->from ? panel->rows : kTileRows; }

  // The same as `rows`, panel by panel.
  void panels(int64_t matrix, int64_t begin, int64_t end, const ActivationRow* x, int64_t tokens, float* out,
              int64_t out_stride, const uint8_t* next) const {
    WeightRow w[kPanelRows];
    for (int64_t n = begin; n < end; n += panel->rows) {
      const int count = static_cast<int>(end - n < panel->rows ? end - n : panel->rows);
      for (int r = 0; r < count; r++) w[r] = row(matrix, n + r);
      const uint8_t* behind = n + count < end ? weight->row(matrix, n + count) : next;
      w[0].ahead = behind ? behind - w[0].data : 0;
      float* first = out + (n - begin);
      panel->multiply(w, count, x, tokens, weight->columns, first, out_stride);
      for (int64_t t = 0; t < tokens; t++) {
        if (are_finite(first + t * out_stride, count)) continue;
        for (int r = 0; r < count; r++) {
          float& value = first[t * out_stride + r];
          if (!is_finite(value)) value = special(w[r], x[t], value);
        }
      }
    }
  }

  // out[m * out_stride + (n - begin)] = row n of the matrix · x[m], for n in [begin, end) and m in [0, tokens).
  // Few tokens go in tiles outside, rows inside: the span of rows should fit the second-level cache. `next`: the weights
  // that are wanted after these, fetched behind them; without it tiles fetch the rows that follow, panels nothing.
  void rows(int64_t matrix, int64_t begin, int64_t end, const ActivationRow* x, int64_t tokens, float* out,
            int64_t out_stride, const uint8_t* next = nullptr) const {
    if (panel && tokens >= panel->from) return panels(matrix, begin, end, x, tokens, out, out_stride, next);
    for (int64_t t = 0; t < tokens; t += kTileTokens) {
      const int count = static_cast<int>(tokens - t < kTileTokens ? tokens - t : kTileTokens);
      for (int64_t n = begin; n < end;) {
        WeightRow w[kTileRows];
        float tile[kTileRows * kTileTokens];
        int height = kernel ? kernel->rows[count - 1] : 1;
        if (end - n < height) height = 1;
        for (int r = 0; r < height; r++) w[r] = row(matrix, n + r);
        // Behind the last row come those of `next`.
        const int64_t lead = w[0].ahead / weight->row_bytes;
        if (next != nullptr && n + lead >= end) {
          const int64_t to_next = next + (n + lead - end) * weight->row_bytes - w[0].data;
          for (int r = 0; r < height; r++) w[r].ahead = to_next;
        }
        if (!kernel) {
          dot_generic(format, w[0], activation, x + t, count, weight->columns, tile);
        } else {
          (height > 1 ? kernel->many : kernel->one)[count - 1](w, x + t, weight->columns, tile);
        }
        for (int r = 0; r < height; r++) {
          for (int m = 0; m < count; m++) {
            float value = tile[r * count + m];
            if (kernel && !is_finite(value)) value = special(w[r], x[t + m], value);
            out[(t + m) * out_stride + (n - begin) + r] = value;
          }
        }
        n += height;
      }
    }
  }
};

}  // namespace tandem::TANDEM_ISA_NAMESPACE
