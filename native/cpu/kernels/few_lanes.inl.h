// A few tokens with sixteen weight rows, a row in each 32-bit lane: what is unpacked is multiplied at once and never put down. Same
// bits as tiles and panels.
//
// Tiles (dot_q256, dot_q32) add the products of a row across lanes for every token; panels write each code to memory before
// they read it. From two tokens to eight most of the time goes there. Here four columns of sixteen rows are turned into a
// vector, unpacked, and meet a dword of codes of each token: a sum never crosses lanes.
#pragma once

#include "cpu/kernels/panel_lanes.inl.h"

namespace tandem::TANDEM_ISA_NAMESPACE {

#if TANDEM_ISA_LEVEL == 2

// Sixteen rows, `stride` bytes apart.
struct LaneRows {
  const uint8_t* first;
  int64_t stride;
  const uint8_t* scales;  // of the first row where the format has them apart, theirs `scale_stride` bytes apart
  int64_t scale_stride;
  const uint8_t* at(int r) const { return first + r * stride; }
  const uint8_t* scales_at(int r) const { return scales + r * scale_stride; }
};

// out[i]: dword i of 16 bytes of all rows. Rows lie in lanes in their order: vector j is made of rows j, 4 + j, 8 + j, 12 + j.
static inline __attribute__((always_inline)) void turn(const LaneRows& w, int64_t offset, Rows (&out)[4]) {
  __m512i v[4];
  const uint8_t* base = w.first + offset;
  const int64_t s4 = 4 * w.stride, s12 = 12 * w.stride;
#pragma GCC unroll 4
  for (int j = 0; j < 4; j++) {
    const uint8_t* p = base + j * w.stride;
    const __m256i low = _mm256_inserti128_si256(_mm256_castsi128_si256(load128(p)), load128(p + s4), 1);
    const __m256i high = _mm256_inserti128_si256(_mm256_castsi128_si256(load128(p + 2 * s4)), load128(p + s12), 1);
    v[j] = _mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1);
  }
  transpose_dwords(v, out);
}

// Bytes of each dword by their numbers; 0x80 is a zero.
static inline Rows dword_bytes(Rows v, uint32_t which) {
  const int c = static_cast<int>(which);
  return _mm512_shuffle_epi8(v, _mm512_set4_epi32(c + 0x0c0c0c0c, c + 0x08080808, c + 0x04040404, c));
}
// Byte i of each dword as a number, signed or not, or twice as words.
static inline Rows dword_byte(Rows v, int i) { return dword_bytes(v, 0x80808000u + static_cast<uint32_t>(i)); }
static inline Rows dword_signed(Rows v, int i) { return rows_signed(rows_left(v, 24 - 8 * i), 24); }
static inline Rows dword_byte_twice(Rows v, int i) { return dword_bytes(v, 0x80008000u + static_cast<uint32_t>(i) * 0x00010001u); }
// Bytes 2i and 2i + 1 of each dword as words, and the same signed.
static inline Rows dword_two_bytes(Rows v, int i) { return dword_bytes(v, 0x80018000u + static_cast<uint32_t>(i) * 0x00020002u); }
static inline Rows dword_words(Rows v, int i) { return _mm512_srai_epi16(dword_bytes(v, 0x01800080u + static_cast<uint32_t>(i) * 0x02000200u), 8); }

// a | b & mask
static inline Rows rows_with(Rows a, Rows b, int32_t mask) { return _mm512_ternarylogic_epi32(a, b, rows_set(mask), 0xf8); }
static inline Rows rows_shifted(Rows v, int left) { return left >= 0 ? rows_left(v, left) : rows_right(v, -left); }

// out[t * stride + r]: row r · token t, r < 16; what lies `ahead` bytes behind each row is fetched.
using FewTile = void (*)(const LaneRows& w, const ActivationRow* x, int64_t k, int64_t ahead, float* out, int64_t stride);

// As PanelKernel::multiply: up to `most` tokens by `tiles`, more tokens and what is left of rows by `panel`.
template <int most, typename Panel>
static inline void multiply_few(const FewTile (&tiles)[most], Panel&& panel, const WeightRow* w, int count, const ActivationRow* x, int64_t tokens, int64_t k, float* out, int64_t stride) {
  int done = 0;
  if (tokens <= most) {
    for (; done + kLaneRows <= count; done += kLaneRows) {
      const WeightRow &first = w[done], &second = w[done + 1], &last = w[done + kLaneRows - 1];
      const LaneRows rows = {first.data, second.data - first.data, first.scales, first.scales ? second.scales - first.scales : 0};
      if (last.data != rows.at(kLaneRows - 1) || last.scales != rows.scales_at(kLaneRows - 1)) break;  // rows that do not follow each other evenly
      tiles[tokens - 1](rows, x, k, w->ahead, out + done, stride);
    }
  }
  if (done < count) panel(w + done, count - done, x, tokens, k, out + done, stride);
}

#endif

}  // namespace tandem::TANDEM_ISA_NAMESPACE
