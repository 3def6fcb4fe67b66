// SPDX-License-Identifier: Apache-2.0
// The blend of blend.hpp for AVX-512 (BW): stores are masked, so exactly the marked bytes are written.
#pragma once

#include "blend.hpp"

#ifdef EDGERUN_AVX512

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"  // GCC bug 105593: its own intrinsics start from undefined ones
#include <immintrin.h>
#pragma GCC diagnostic pop

namespace edgerun {

struct Avx512Blend {
  template <int BYTES>
  EDGERUN_AVX512 static void rows(uint8_t* pixels, int64_t stride, const Marks& marks, const Tint& fill,
                                  const Tint& contour) {
    const int32_t whole = marks.width / kMarkBlock * kMarkBlock;
    const uint64_t rest = (uint64_t{1} << (marks.width - whole)) - 1;
    for (int32_t y = 0; y < marks.height; ++y) {
      uint8_t* row = pixels + y * stride;
      const uint8_t* from = marks.data + y * marks.stride;
      for (int32_t x = 0; x < whole; x += kMarkBlock) {
        block<BYTES>(row + x * BYTES, _mm512_loadu_si512(from + x), fill, contour);
      }
      if (rest) block<BYTES>(row + whole * BYTES, _mm512_maskz_loadu_epi8(rest, from + whole), fill, contour);
    }
  }

  // Written in whole blocks, as they are read again at once: a load that spans several stores would wait for them.
  EDGERUN_AVX512 static void chroma_marks(const uint8_t* upper, const uint8_t* lower, int32_t count, uint8_t* out) {
    for (int32_t i = 0; i < count; i += kMarkBlock) {
      const __m256i left = half_block(upper + 2 * i, lower + 2 * i, 2 * (count - i));
      const __m256i right = half_block(upper + 2 * i + 64, lower + 2 * i + 64, 2 * (count - i) - 64);
      _mm512_store_si512(out + i, _mm512_inserti64x4(_mm512_castsi256_si512(left), right, 1));
    }
  }

 private:
  // Chroma marks of up to 64 luma columns; `left` is how many there are, even, perhaps none.
  EDGERUN_AVX512 EDGERUN_INLINE static __m256i half_block(const uint8_t* upper, const uint8_t* lower, int32_t left) {
    const __mmask64 is_there = left >= 64 ? ~uint64_t{0} : left <= 0 ? 0 : (uint64_t{1} << left) - 1;
    const __m512i a = _mm512_maskz_loadu_epi8(is_there, upper), b = _mm512_maskz_loadu_epi8(is_there, lower);
    const __m512i low = _mm512_min_epu8(a, b), top = _mm512_max_epu8(a, b);
    const __m512i least = _mm512_min_epu8(low, _mm512_srli_epi16(low, 8));  // in the low byte of each word
    const __m512i greatest = _mm512_max_epu8(top, _mm512_srli_epi16(top, 8));
    const __mmask32 is_covered = _mm512_test_epi16_mask(least, _mm512_set1_epi16(255));
    return _mm512_maskz_cvtepi16_epi8(is_covered, greatest);
  }

  template <int BYTES>
  EDGERUN_AVX512 EDGERUN_INLINE static void block(uint8_t* pixels, __m512i marks, const Tint& fill,
                                                  const Tint& contour) {
    if (_mm512_test_epi8_mask(marks, marks) == 0) return;
    if (_mm512_cmpeq_epi8_mask(marks, _mm512_set1_epi8(1)) == ~uint64_t{0}) {
      for (int part = 0; part < BYTES; ++part) {
        uint8_t* at = pixels + part * 64;
        _mm512_storeu_si512(at, tinted(_mm512_loadu_si512(at), fill, part));
      }
      return;
    }
    for (int part = 0; part < BYTES; ++part) {
      uint8_t* at = pixels + part * 64;
      const __m512i mark = spread<BYTES>(marks, part);
      const __mmask64 is_marked = _mm512_test_epi8_mask(mark, mark);
      const __mmask64 is_fill = _mm512_cmpeq_epi8_mask(mark, _mm512_set1_epi8(1));
      const __m512i old = _mm512_maskz_loadu_epi8(is_marked, at);
      const __m512i blended = _mm512_mask_blend_epi8(is_fill, tinted(old, contour, part), tinted(old, fill, part));
      _mm512_mask_storeu_epi8(at, is_marked, blended);
    }
  }

  // 64 bytes of a block, the bytes at even and at odd places each in 16-bit lanes of their own.
  EDGERUN_AVX512 EDGERUN_INLINE static __m512i tinted(__m512i old, const Tint& tint, int part) {
    const __m512i keep = _mm512_set1_epi16(static_cast<int16_t>(tint.keep));
    const __m512i even = _mm512_mullo_epi16(_mm512_and_si512(old, _mm512_set1_epi16(255)), keep);
    const __m512i odd = _mm512_mullo_epi16(_mm512_srli_epi16(old, 8), keep);
    const __m512i low = _mm512_add_epi16(even, _mm512_load_si512(tint.add_even + part * 32));
    const __m512i high = _mm512_add_epi16(odd, _mm512_load_si512(tint.add_odd + part * 32));
    return _mm512_mask_blend_epi8(0xaaaaaaaaaaaaaaaa, _mm512_srli_epi16(low, 8), high);
  }

  // The mark of each of 64 bytes. Sixteen marks are BYTES lanes of 16 bytes: those are brought in place, then repeated.
  template <int BYTES>
  EDGERUN_AVX512 EDGERUN_INLINE static __m512i spread(__m512i marks, int part) {
    if (BYTES == 1) return marks;
    alignas(64) uint8_t from[64];
    for (int i = 0; i < 64; ++i) from[i] = static_cast<uint8_t>((part * 64 + i) / BYTES % 16);
    const __m512i lanes = BYTES == 2   ? (part == 0 ? _mm512_shuffle_i64x2(marks, marks, 0x50)
                                                    : _mm512_shuffle_i64x2(marks, marks, 0xfa))
                          : part == 0 ? _mm512_shuffle_i64x2(marks, marks, 0x40)
                          : part == 1 ? _mm512_shuffle_i64x2(marks, marks, 0xa5)
                                      : _mm512_shuffle_i64x2(marks, marks, 0xfe);
    return _mm512_shuffle_epi8(lanes, _mm512_load_si512(from));
  }
};

EDGERUN_AVX512 inline void blend_picture_avx512(const Plane* planes, int32_t luma_bytes, int32_t chroma_bytes,
                                                const Marks& marks, const Tint* fill, const Tint* contour) {
  blend_picture<Avx512Blend>(planes, luma_bytes, chroma_bytes, marks, fill, contour);
}

}  // namespace edgerun

#endif  // EDGERUN_AVX512
