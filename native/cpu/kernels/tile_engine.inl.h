// The tile engines of cpu/tiles.h: AMX, its emulation, AVX512-BF16.
//
// A product walks K in chunks of 512 columns. Of a chunk, all rows are decoded to a panel (tile_panel.inl.h) that stays in the
// second-level cache; then pairs of token blocks, whose chunk (32 KB) stays in the first, meet pairs of strips: 32 rows × 32
// tokens in four tiles of sums, two operands from L1, two from L2. Sums wait in `products` between chunks.
//
// With AMX the next chunk is decoded meanwhile, a row at a time between tile instructions: those take 16 cycles each in a unit
// of their own, while the vector units would be idle.
//
// A sum depends on its row and its token alone: chunks and the order within them are fixed.
#pragma once

#include "cpu/kernels/tile_dense.inl.h"
#include "cpu/kernels/tile_panel.inl.h"
#include "cpu/kernels/tile_unit.inl.h"
#include "cpu/kernels/transpose.inl.h"
#include "cpu/tiles.h"

namespace tandem::TANDEM_ISA_NAMESPACE {

#if TANDEM_ISA_LEVEL >= 3

constexpr int64_t kChunkColumns = 512;
constexpr int64_t kStripElements = 16 * kChunkColumns;  // of a panel

// The rows of a product as pieces to decode: `start` a chunk, then `run` so many pieces, or `finish`.
class PanelQueue {
 public:
  explicit PanelQueue(const TileProduct& product) : product_(product), rows_(product.end - product.begin) {
    strips_each_ = tile_count(rows_, kTileRows16);
    for (int w = 0; w < 2 && product.weights[w]; w++) {
      const BoundWeight& weight = *product.weights[w];
      const WeightFormat format = weight_format(*weight.format);
      sources_[w] = {weight.row(product.matrix, product.begin), panel_piece(format),
                     kPieceColumns / format_info(format).block_size * format_info(format).block_bytes, weight.row_bytes};
      strips_ += strips_each_;
    }
  }
  int64_t strips() const { return strips_; }

  // Columns [first, first + kChunkColumns) of all rows, into `panel`.
  void start(int64_t first, uint16_t* panel) {
    const int64_t columns = product_.weights[0]->columns;
    first_ = first;
    count_ = columns - first < kChunkColumns ? columns - first : kChunkColumns;
    parts_ = tile_count(count_, kPieceColumns);
    panel_ = panel;
    strip_ = row_ = part_ = 0;
    left_ = strips_ * kTileRows16 * parts_;
  }
  int64_t left() const { return left_; }

  void run(int64_t pieces) {
    for (; pieces > 0 && left_ > 0; pieces--) {
      decode();
      left_--;
      if (++part_ < parts_) continue;
      part_ = 0;
      if (++row_ < kTileRows16) continue;
      row_ = 0;
      strip_++;
    }
  }
  void finish() { run(left_); }

 private:
  struct Source {
    const uint8_t* data;
    PanelPiece piece;
    int64_t piece_bytes, row_bytes;
  };

  void decode() {
    const int w = strip_ >= strips_each_ ? 1 : 0;
    const int64_t row = (strip_ - w * strips_each_) * kTileRows16 + row_;
    const int64_t at = part_ * kPieceColumns, left = count_ - at, columns = left < kPieceColumns ? left : kPieceColumns;
    uint16_t* out = panel_ + strip_ * kStripElements + at / kTileColumns * kTileElements + row_ * kTileColumns;
    if (row >= rows_) {
      for (int64_t i = 0; i < columns; i += kTileColumns) _mm512_store_si512(out + i * 16, _mm512_setzero_si512());
      return;
    }
    const Source& source = sources_[w];
    const BoundWeight& weight = *product_.weights[w];
    const int64_t column = first_ + at;
    const uint8_t* from = source.data + row * source.row_bytes + column / kPieceColumns * source.piece_bytes;
    // The same columns of the next chunk, or of a later row: these bytes are too scattered for the processor to foresee.
    const bool last = column + kChunkColumns >= weight.columns;
    const uint8_t* soon = from + (last ? 4 * source.row_bytes : kChunkColumns / kPieceColumns * source.piece_bytes);
    for (int64_t i = 0; i < source.piece_bytes; i += 64) _mm_prefetch(reinterpret_cast<const char*>(soon + i), _MM_HINT_T1);
    const uint8_t* scales = weight.scales ? weight.format->scales_at(weight.row_scales(product_.matrix, product_.begin + row), column) : nullptr;
    source.piece(from, columns, scales, out);
  }

  const TileProduct& product_;
  int64_t rows_, strips_each_ = 0, strips_ = 0;
  Source sources_[2] = {};
  int64_t first_ = 0, count_ = 0, parts_ = 0, strip_ = 0, row_ = 0, part_ = 0, left_ = 0;
  uint16_t* panel_ = nullptr;
};

// Addresses of a group of up to 2 strips × 2 blocks within a chunk; strides in elements.
struct TileGroup {
  const uint16_t* panel;
  const uint16_t* tokens;
  int64_t token_stride;    // from a block to the next
  float* products;
  int64_t product_stride;  // from a strip to the next; blocks are neighbours
  int64_t steps;           // tiles of K
  bool first;              // no sums yet
  // The pair of blocks that comes after this one, null at the end; this group asks for `lines` cache lines of it a step, from
  // line `line` on. Tiles go through it in a thousand cycles: too fast to wait for what lies beyond the second-level cache.
  const uint16_t* soon;
  int64_t line, lines;

  void fetch_soon(int64_t step) const {
    if (soon == nullptr) return;
    const int64_t run = steps * 16;  // lines of a block's chunk
    for (int64_t i = line + step * lines; i < line + (step + 1) * lines && i < 2 * run; i++) {
      _mm_prefetch(reinterpret_cast<const char*>(i < run ? soon + i * 32 : soon + token_stride + (i - run) * 32), _MM_HINT_T1);
    }
  }
};

// 2 × 2 tiles of sums (0 … 3), two of weights (4, 5), two of activations (6, 7).
template <typename Unit>
struct TileMultiplier {
  static constexpr bool kDecodesMeanwhile = true;
  static constexpr int64_t kStepsBetweenPieces = 4;

  TileMultiplier() {
    TileConfig config;
    for (int t = 0; t < 8; t++) config.shape(t, 16, 64);
    unit_.configure(config);
  }
  ~TileMultiplier() { unit_.release(); }

  template <int strips, int blocks>
  void multiply(const TileGroup& g, PanelQueue& next, int64_t pace) {
    const auto sum_of = [&](int s, int b) { return g.products + s * g.product_stride + b * kTileProducts; };
    if (g.first) {
      unit_.template zero<0>();
      if constexpr (blocks > 1) unit_.template zero<1>();
      if constexpr (strips > 1) unit_.template zero<2>();
      if constexpr (strips > 1 && blocks > 1) unit_.template zero<3>();
    } else {
      unit_.template load<0>(sum_of(0, 0), 64);
      if constexpr (blocks > 1) unit_.template load<1>(sum_of(0, 1), 64);
      if constexpr (strips > 1) unit_.template load<2>(sum_of(1, 0), 64);
      if constexpr (strips > 1 && blocks > 1) unit_.template load<3>(sum_of(1, 1), 64);
    }
    for (int64_t k = 0; k < g.steps; k++) {
      const uint16_t *a = g.panel + k * kTileElements, *b = g.tokens + k * kTileElements;
      unit_.template load<4>(a, 64);
      unit_.template load<6>(b, 64);
      unit_.template dot_bf16<0, 4, 6>();
      if constexpr (blocks > 1) {
        unit_.template load<7>(b + g.token_stride, 64);
        unit_.template dot_bf16<1, 4, 7>();
      }
      if constexpr (strips > 1) {
        unit_.template load<5>(a + kStripElements, 64);
        unit_.template dot_bf16<2, 5, 6>();
        if constexpr (blocks > 1) unit_.template dot_bf16<3, 5, 7>();
      }
      g.fetch_soon(k);
      if (pace > 0 && k % kStepsBetweenPieces == kStepsBetweenPieces - 1) next.run(pace);
    }
    unit_.template store<0>(sum_of(0, 0), 64);
    if constexpr (blocks > 1) unit_.template store<1>(sum_of(0, 1), 64);
    if constexpr (strips > 1) unit_.template store<2>(sum_of(1, 0), 64);
    if constexpr (strips > 1 && blocks > 1) unit_.template store<3>(sum_of(1, 1), 64);
  }

 private:
  Unit unit_;
};

// VDPBF16PS: 8 rows × 16 tokens × `blocks` in registers, pairs of weights broadcast from memory.
struct LaneMultiplier {
  static constexpr bool kDecodesMeanwhile = false;
  static constexpr int64_t kStepsBetweenPieces = 1;

  template <int strips, int blocks>
  void multiply(const TileGroup& g, PanelQueue&, int64_t) {
    for (int s = 0; s < strips; s++) {
      for (int half = 0; half < 2; half++) {
        part<blocks>(g, g.panel + s * kStripElements + half * 8 * kTileColumns, g.products + s * g.product_stride + half * 8 * 16);
      }
    }
  }

 private:
  template <int blocks>
  static __attribute__((noinline)) void part(const TileGroup& g, const uint16_t* a, float* products) {
    __m512 sums[8][blocks];
#pragma GCC unroll 8
    for (int r = 0; r < 8; r++) {
#pragma GCC unroll 2
      for (int b = 0; b < blocks; b++) sums[r][b] = g.first ? _mm512_setzero_ps() : _mm512_load_ps(products + b * kTileProducts + r * 16);
    }
    const uint16_t* tokens = g.tokens;
    for (int64_t k = 0; k < g.steps; k++, a += kTileElements, tokens += kTileElements) {
      for (int p = 0; p < 16; p++) {
        __m512bh values[blocks];
#pragma GCC unroll 2
        for (int b = 0; b < blocks; b++) values[b] = reinterpret_cast<__m512bh>(_mm512_load_si512(tokens + b * g.token_stride + 32 * p));
#pragma GCC unroll 8
        for (int r = 0; r < 8; r++) {
          int32_t pair;
          memcpy(&pair, a + r * kTileColumns + 2 * p, sizeof pair);
          const __m512bh weights = reinterpret_cast<__m512bh>(_mm512_set1_epi32(pair));
#pragma GCC unroll 2
          for (int b = 0; b < blocks; b++) sums[r][b] = _mm512_dpbf16_ps(sums[r][b], values[b], weights);
        }
      }
    }
#pragma GCC unroll 8
    for (int r = 0; r < 8; r++) {
#pragma GCC unroll 2
      for (int b = 0; b < blocks; b++) _mm512_store_ps(products + b * kTileProducts + r * 16, sums[r][b]);
    }
  }
};

template <typename Multiplier>
static void tile_multiply(const TileProduct& product) {
  PanelQueue queue(product);
  Multiplier multiplier;
  const int64_t columns = product.weights[0]->columns, tiles = tile_count(columns, kTileColumns);
  const int64_t strips = queue.strips(), blocks = product.blocks;
  uint16_t *panel = product.panel, *next = product.panel + kMostStrips * kStripElements;
  queue.start(0, panel);
  queue.finish();
  for (int64_t first = 0; first < columns; first += kChunkColumns) {
    TileGroup group;
    const int64_t left = tiles - first / kTileColumns;
    group.steps = left < kChunkColumns / kTileColumns ? left : kChunkColumns / kTileColumns;
    group.token_stride = tiles * kTileElements;
    group.product_stride = blocks * kTileProducts;
    group.first = first == 0;
    const bool more = first + kChunkColumns < columns;
    int64_t pace = 0;
    if (more) {
      queue.start(first + kChunkColumns, next);
      const int64_t pauses = tile_count(strips, 2) * tile_count(blocks, 2) * (group.steps / Multiplier::kStepsBetweenPieces);
      if (Multiplier::kDecodesMeanwhile) pace = tile_count(queue.left(), pauses);
    }
    group.lines = tile_count(32, tile_count(strips, 2));
    for (int64_t b = 0; b < blocks; b += 2) {
      const auto chunk_of = [&](int64_t block, int64_t column) { return product.tokens + (block * tiles + column / kTileColumns) * kTileElements; };
      group.tokens = chunk_of(b, first);
      group.soon = b + 2 < blocks ? chunk_of(b + 2, first) : more ? chunk_of(0, first + kChunkColumns) : nullptr;
      for (int64_t s = 0; s < strips; s += 2) {
        group.panel = panel + s * kStripElements;
        group.line = s / 2 * group.steps * group.lines;
        group.products = product.products + (s * blocks + b) * kTileProducts;
        const bool two_strips = s + 1 < strips, two_blocks = b + 1 < blocks;
        if (two_strips && two_blocks) multiplier.template multiply<2, 2>(group, queue, pace);
        else if (two_strips) multiplier.template multiply<2, 1>(group, queue, pace);
        else if (two_blocks) multiplier.template multiply<1, 2>(group, queue, pace);
        else multiplier.template multiply<1, 1>(group, queue, pace);
      }
    }
    if (!more) break;
    queue.finish();
    uint16_t* used = panel;
    panel = next;
    next = used;
  }
}

static void tile_pack(const float* const* rows, int64_t count, int64_t columns, int64_t first, int64_t last, uint16_t* block) {
  for (int64_t tile = first; tile < last; tile++) {
    const int64_t at = tile * kTileColumns, left = columns - at;
    const __mmask16 low = left >= 16 ? 0xffff : static_cast<__mmask16>((1u << left) - 1);
    const __mmask16 high = left >= 32 ? 0xffff : left <= 16 ? 0 : static_cast<__mmask16>((1u << (left - 16)) - 1);
    __m512i tokens[16];
#pragma GCC unroll 16
    for (int t = 0; t < 16; t++) {
      tokens[t] = _mm512_setzero_si512();
      if (t < count) tokens[t] = round_pair(_mm512_maskz_loadu_ps(low, rows[t] + at), _mm512_maskz_loadu_ps(high, rows[t] + at + 16));
    }
    transpose_dwords(tokens);
#pragma GCC unroll 16
    for (int p = 0; p < 16; p++) _mm512_store_si512(block + tile * kTileElements + 32 * p, tokens[p]);
  }
}

static void tile_fold(const float* products, int64_t strip, uint16_t* block) {
  // Word 2t from the even feature's 16 tokens, word 2t + 1 from the odd one's.
  uint16_t* out = block + strip / 2 * kTileElements + strip % 2 * (kTileElements / 2);
  for (int p = 0; p < 8; p++) {
    const __m256i even = reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(_mm512_loadu_ps(products + 32 * p)));
    const __m256i odd = reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(_mm512_loadu_ps(products + 32 * p + 16)));
    const __m512i pairs = _mm512_or_si512(_mm512_cvtepu16_epi32(even), _mm512_slli_epi32(_mm512_cvtepu16_epi32(odd), 16));
    _mm512_store_si512(out + 32 * p, pairs);
  }
}

static void register_tile_engine() {
  static const TileEngine amx{"amx", tile_pack, tile_fold, tile_multiply<TileMultiplier<AmxTiles>>, tile_dense<AmxTiles>};
  static const TileEngine emulated{"amx-emulated", tile_pack, tile_fold, tile_multiply<TileMultiplier<EmulatedTiles>>, tile_dense<EmulatedTiles>};
  static const TileEngine lanes{"avx512-bf16", tile_pack, tile_fold, tile_multiply<LaneMultiplier>, nullptr};
  register_tiles(TileKind::amx, &amx);
  register_tiles(TileKind::amx_emulated, &emulated);
  register_tiles(TileKind::avx512_bf16, &lanes);
}

#else

// Engines are made of the instructions of the strongest build.
static void register_tile_engine() {}

#endif

}  // namespace tandem::TANDEM_ISA_NAMESPACE
