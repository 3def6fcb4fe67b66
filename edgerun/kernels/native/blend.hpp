// SPDX-License-Identifier: Apache-2.0
// Alpha blending of marked pixels, in place. A row is walked in blocks: unmarked ones cost a look at their marks, evenly
// marked ones a multiply-add per byte, mixed ones choose the factors per byte. Walking exact runs instead is slower:
// their ends can't be predicted.
#pragma once

#include "portable.hpp"

namespace edgerun {

constexpr int32_t kMarkBlock = 64;     // pixels
constexpr int32_t kPattern = 3 * kMarkBlock;
constexpr int32_t kChromaChunk = 512;  // chroma marks worked out at a time, on the stack

// new = (old * keep + add) >> 8 with keep = 256 - alpha, add = colour * alpha + 128: at most 65408, exact in uint16.
// The addends of a block's bytes, which repeat with the pixel: those at even places, then those at odd ones.
struct alignas(64) Tint {
  uint16_t add_even[kPattern / 2];
  uint16_t add_odd[kPattern / 2];
  uint16_t keep;
};

struct Marks {
  const uint8_t* data;
  int64_t stride;
  int32_t x, y, width, height;  // the window, in pixels of the plane
};

struct Plane {
  uint8_t* data;
  int64_t stride;
  int32_t width, height;  // in pixels
};

EDGERUN_HD EDGERUN_INLINE uint8_t blend_byte(uint8_t old, uint16_t keep, uint16_t add) {
  return static_cast<uint8_t>(static_cast<uint16_t>(old * keep + add) >> 8);
}

// Chroma mark of four luma marks: none unless all are set, then the greatest.
EDGERUN_HD EDGERUN_INLINE uint8_t chroma_mark(uint8_t a, uint8_t b, uint8_t c, uint8_t d) {
  const uint8_t low_ab = a < b ? a : b, low_cd = c < d ? c : d, low = low_ab < low_cd ? low_ab : low_cd;
  const uint8_t top_ab = a > b ? a : b, top_cd = c > d ? c : d, top = top_ab > top_cd ? top_ab : top_cd;
  return low == 0 ? 0 : top;
}

// The chroma samples, along one axis, whose luma samples (those inside the picture) all lie in the window.
struct Span {
  int32_t begin, end;
};

EDGERUN_HD EDGERUN_INLINE Span covered_chroma(int32_t start, int32_t size, int32_t picture) {
  const int32_t end = start + size;
  return {(start + 1) / 2, end == picture ? (end + 1) / 2 : end / 2};
}

#ifndef __CUDACC_RTC__  // row loops of the CPU; a GPU thread takes the per-pixel functions above

// Both bytes of a pair are blended in 16-bit lanes of their own, so nothing is widened and narrowed again.
template <int BYTES>
EDGERUN_INLINE void blend_even_block(const uint8_t* from, const Tint& EDGERUN_RESTRICT tint, uint8_t* to) {
  const BytePair* source = reinterpret_cast<const BytePair*>(from);
  BytePair* target = reinterpret_cast<BytePair*>(to);
  const uint16_t keep = tint.keep;
  for (int i = 0; i < kMarkBlock * BYTES / 2; ++i) {
    const uint16_t pair = source[i];
    const uint16_t even = static_cast<uint16_t>((pair & 0xff) * keep + tint.add_even[i]);
    const uint16_t odd = static_cast<uint16_t>((pair >> 8) * keep + tint.add_odd[i]);
    target[i] = static_cast<uint16_t>((even >> 8) | (odd & 0xff00));
  }
}

// Blends the whole block both ways, then chooses per byte.
template <int BYTES>
EDGERUN_INLINE void blend_mixed_block(uint8_t* EDGERUN_RESTRICT pixels, const uint8_t* EDGERUN_RESTRICT marks,
                                      const Tint& fill, const Tint& contour) {
  alignas(64) uint8_t filled[kMarkBlock * BYTES], contoured[kMarkBlock * BYTES], wide[kMarkBlock * BYTES];
  for (int i = 0; i < kMarkBlock; ++i) {
    for (int c = 0; c < BYTES; ++c) wide[i * BYTES + c] = marks[i];
  }
  blend_even_block<BYTES>(pixels, fill, filled);
  blend_even_block<BYTES>(pixels, contour, contoured);
  for (int i = 0; i < kMarkBlock * BYTES; ++i) {
    const uint8_t marked = wide[i] == 1 ? filled[i] : contoured[i];
    pixels[i] = wide[i] == 0 ? pixels[i] : marked;
  }
}

typedef uint64_t Words __attribute__((vector_size(32), aligned(1), may_alias));

EDGERUN_INLINE bool is_even(const uint8_t* marks, uint8_t mark) {
  const uint64_t same = mark * 0x0101010101010101u;
  const Words* words = reinterpret_cast<const Words*>(marks);
  Words difference = words[0] ^ same;
  for (int i = 1; i < kMarkBlock / 32; ++i) difference |= words[i] ^ same;
  return (difference[0] | difference[1] | difference[2] | difference[3]) == 0;
}

template <int BYTES>
EDGERUN_INLINE void blend_block(uint8_t* pixels, const uint8_t* marks, const Tint& fill, const Tint& contour) {
  const uint8_t mark = marks[0];
  if (!is_even(marks, mark)) return blend_mixed_block<BYTES>(pixels, marks, fill, contour);
  if (mark != 0) blend_even_block<BYTES>(pixels, mark == 1 ? fill : contour, pixels);
}

// What is left of a row is done as the block that ends with it, the pixels done before taken as unmarked.
template <int BYTES>
EDGERUN_INLINE void blend_last_block(uint8_t* pixels, const uint8_t* marks, int32_t done, const Tint& fill,
                                     const Tint& contour) {
  uint8_t left[kMarkBlock];
  for (int i = 0; i < kMarkBlock; ++i) {
    const uint8_t place = static_cast<uint8_t>(i), is_left = place >= static_cast<uint8_t>(done);
    left[i] = static_cast<uint8_t>(marks[i] & -is_left);
  }
  blend_block<BYTES>(pixels, left, fill, contour);
}

template <int BYTES>
EDGERUN_INLINE void blend_row(uint8_t* row, const uint8_t* marks, int32_t width, const Tint& fill,
                              const Tint& contour) {
  int32_t x = 0;
  for (; x + kMarkBlock <= width; x += kMarkBlock) blend_block<BYTES>(row + x * BYTES, marks + x, fill, contour);
  if (x == width) return;
  const int32_t last = width - kMarkBlock;
  if (last >= 0) return blend_last_block<BYTES>(row + last * BYTES, marks + last, x - last, fill, contour);
  for (; x < width; ++x) {
    if (marks[x] == 0) continue;
    const Tint& tint = marks[x] == 1 ? fill : contour;
    for (int c = 0; c < BYTES; ++c) {
      uint8_t& byte = row[x * BYTES + c];
      byte = blend_byte(byte, tint.keep, c == 1 ? tint.add_odd[0] : tint.add_even[c / 2]);
    }
  }
}

// One way to blend a rectangle of marks, whose first pixel is at `pixels`; blend_avx512.hpp has another.
struct PortableBlend {
  template <int BYTES>
  EDGERUN_INLINE static void rows(uint8_t* pixels, int64_t stride, const Marks& marks, const Tint& fill,
                                  const Tint& contour) {
    for (int32_t y = 0; y < marks.height; ++y) {
      blend_row<BYTES>(pixels + y * stride, marks.data + y * marks.stride, marks.width, fill, contour);
    }
  }

  // `out` has room for whole blocks of kMarkBlock.
  EDGERUN_INLINE static void chroma_marks(const uint8_t* upper, const uint8_t* lower, int32_t count,
                                          uint8_t* EDGERUN_RESTRICT out) {
    for (int32_t i = 0; i < count; ++i) {
      out[i] = chroma_mark(upper[2 * i], upper[2 * i + 1], lower[2 * i], lower[2 * i + 1]);
    }
  }
};

template <class Blend, int BYTES>
EDGERUN_INLINE void blend_plane(const Plane& plane, const Marks& marks, const Tint& fill, const Tint& contour) {
  uint8_t* first = plane.data + marks.y * plane.stride + static_cast<int64_t>(marks.x) * BYTES;
  Blend::template rows<BYTES>(first, plane.stride, marks, fill, contour);
}

// Marks of `count` chroma samples from column `begin`; `picture` is the luma width.
template <class Blend>
EDGERUN_INLINE void chroma_marks_row(const uint8_t* upper, const uint8_t* lower, int32_t begin, int32_t count,
                                     const Marks& marks, int32_t picture, uint8_t* EDGERUN_RESTRICT out) {
  const bool odd_edge = 2 * (begin + count) > picture;
  const int32_t pairs = odd_edge ? count - 1 : count;
  upper += 2 * begin - marks.x;
  lower += 2 * begin - marks.x;
  Blend::chroma_marks(upper, lower, pairs, out);
  if (odd_edge) out[pairs] = chroma_mark(upper[2 * pairs], upper[2 * pairs], lower[2 * pairs], lower[2 * pairs]);
}

// BYTES of a chroma pixel: 2 for NV12's one plane, 1 for I420's two. `luma` gives the picture's size.
template <class Blend, int BYTES>
EDGERUN_INLINE void blend_chroma(const Plane& luma, const Plane* chroma, const Marks& marks, const Tint* fill,
                                 const Tint* contour) {
  const Span columns = covered_chroma(marks.x, marks.width, luma.width);
  const Span rows = covered_chroma(marks.y, marks.height, luma.height);
  alignas(64) uint8_t row_marks[kChromaChunk];
  for (int32_t y = rows.begin; y < rows.end; ++y) {
    const uint8_t* upper = marks.data + (2 * y - marks.y) * marks.stride;
    const uint8_t* lower = 2 * y + 1 < luma.height ? upper + marks.stride : upper;
    for (int32_t x = columns.begin; x < columns.end; x += kChromaChunk) {
      const int32_t left = columns.end - x, count = left < kChromaChunk ? left : kChromaChunk;
      chroma_marks_row<Blend>(upper, lower, x, count, marks, luma.width, row_marks);
      for (int p = 0; p < 3 - BYTES; ++p) {
        uint8_t* row = chroma[p].data + y * chroma[p].stride + static_cast<int64_t>(x) * BYTES;
        Blend::template rows<BYTES>(row, 0, {row_marks, 0, 0, 0, count, 1}, fill[p], contour[p]);
      }
    }
  }
}

// Every plane of a picture; `chroma_bytes` is 0 where there is no chroma plane.
template <class Blend>
EDGERUN_INLINE void blend_picture(const Plane* planes, int32_t luma_bytes, int32_t chroma_bytes, const Marks& marks,
                                  const Tint* fill, const Tint* contour) {
  if (luma_bytes == 3) {
    blend_plane<Blend, 3>(planes[0], marks, fill[0], contour[0]);
  } else {
    blend_plane<Blend, 1>(planes[0], marks, fill[0], contour[0]);
  }
  if (chroma_bytes == 1) blend_chroma<Blend, 1>(planes[0], planes + 1, marks, fill + 1, contour + 1);
  if (chroma_bytes == 2) blend_chroma<Blend, 2>(planes[0], planes + 1, marks, fill + 1, contour + 1);
}

#endif  // __CUDACC_RTC__

}  // namespace edgerun
