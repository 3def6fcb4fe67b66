// SPDX-License-Identifier: Apache-2.0
// Alpha blending of marked pixels, in place. Rows are walked as runs of equal marks: unmarked runs cost a scan of the
// marks, marked runs one multiply-add per byte; the mark is never widened to the pixel's bytes.
#pragma once

#include "portable.hpp"

namespace edgerun {

constexpr int32_t kPattern = 96;       // a multiple of 1, 2 and 3 bytes per pixel, and of every vector length
constexpr int32_t kChromaChunk = 512;  // chroma marks worked out at a time, on the stack

// new = (old * keep + add) >> 8 with keep = 256 - alpha, add = colour * alpha + 128: at most 65408, exact in uint16.
struct Tint {
  uint16_t keep;
  uint16_t add[kPattern];  // the pixel's bytes, repeated
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
  int32_t pixel_bytes;
};

EDGERUN_HD EDGERUN_INLINE uint8_t blend_byte(uint8_t old, uint16_t keep, uint16_t add) {
  return static_cast<uint8_t>(static_cast<uint16_t>(old * keep + add) >> 8);
}

EDGERUN_INLINE void blend_run(uint8_t* pixels, int64_t bytes, const Tint& tint) {
  for (; bytes >= kPattern; bytes -= kPattern, pixels += kPattern) {
    for (int32_t i = 0; i < kPattern; ++i) pixels[i] = blend_byte(pixels[i], tint.keep, tint.add[i]);
  }
  for (int64_t i = 0; i < bytes; ++i) pixels[i] = blend_byte(pixels[i], tint.keep, tint.add[i]);
}

EDGERUN_INLINE uint64_t load_8(const uint8_t* bytes) {
  uint64_t word;
  memcpy(&word, bytes, sizeof word);
  return word;
}

// First index after x whose mark differs from that at x.
EDGERUN_INLINE int32_t end_of_run(const uint8_t* marks, int32_t x, int32_t width) {
  const uint8_t mark = marks[x];
  const uint64_t same = mark * 0x0101010101010101u;
  ++x;
  for (; x + 32 <= width; x += 32) {
    const uint64_t a = load_8(marks + x) ^ same, b = load_8(marks + x + 8) ^ same;
    const uint64_t c = load_8(marks + x + 16) ^ same, d = load_8(marks + x + 24) ^ same;
    if ((a | b | c | d) != 0) break;
  }
  for (; x + 8 <= width; x += 8) {
    const uint64_t difference = load_8(marks + x) ^ same;
    if (difference != 0) return x + (__builtin_ctzll(difference) >> 3);  // little-endian, as x86 and ARM run Linux
  }
  while (x < width && marks[x] == mark) ++x;
  return x;
}

EDGERUN_INLINE void blend_row(uint8_t* row, int32_t pixel_bytes, const uint8_t* marks, int32_t width,
                              const Tint& fill, const Tint& contour) {
  for (int32_t x = 0; x < width;) {
    const int32_t end = end_of_run(marks, x, width);
    if (marks[x] != 0) {
      blend_run(row + static_cast<int64_t>(x) * pixel_bytes, static_cast<int64_t>(end - x) * pixel_bytes,
                marks[x] == 1 ? fill : contour);
    }
    x = end;
  }
}

EDGERUN_INLINE void blend_plane(const Plane& plane, const Marks& marks, const Tint& fill, const Tint& contour) {
  uint8_t* first = plane.data + marks.y * plane.stride + static_cast<int64_t>(marks.x) * plane.pixel_bytes;
  for (int32_t y = 0; y < marks.height; ++y) {
    blend_row(first + y * plane.stride, plane.pixel_bytes, marks.data + y * marks.stride, marks.width, fill, contour);
  }
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

// Marks of `count` chroma samples from column `begin`; `picture` is the luma width.
EDGERUN_INLINE void chroma_marks_row(const uint8_t* upper, const uint8_t* lower, int32_t begin, int32_t count,
                                     const Marks& marks, int32_t picture, uint8_t* out) {
  const bool odd_edge = 2 * (begin + count) > picture;
  const int32_t pairs = odd_edge ? count - 1 : count;
  upper += 2 * begin - marks.x;
  lower += 2 * begin - marks.x;
  for (int32_t i = 0; i < pairs; ++i) {
    out[i] = chroma_mark(upper[2 * i], upper[2 * i + 1], lower[2 * i], lower[2 * i + 1]);
  }
  if (odd_edge) out[pairs] = chroma_mark(upper[2 * pairs], upper[2 * pairs], lower[2 * pairs], lower[2 * pairs]);
}

// `chroma`: one plane (NV12) or two (I420). `luma` gives the picture's size; tints come in pairs fill, contour.
EDGERUN_INLINE void blend_chroma(const Plane& luma, const Plane* chroma, int32_t planes, const Marks& marks,
                                 const Tint* fill, const Tint* contour) {
  const Span columns = covered_chroma(marks.x, marks.width, luma.width);
  const Span rows = covered_chroma(marks.y, marks.height, luma.height);
  uint8_t row_marks[kChromaChunk];
  for (int32_t y = rows.begin; y < rows.end; ++y) {
    const uint8_t* upper = marks.data + (2 * y - marks.y) * marks.stride;
    const uint8_t* lower = 2 * y + 1 < luma.height ? upper + marks.stride : upper;
    for (int32_t x = columns.begin; x < columns.end; x += kChromaChunk) {
      const int32_t left = columns.end - x, count = left < kChromaChunk ? left : kChromaChunk;
      chroma_marks_row(upper, lower, x, count, marks, luma.width, row_marks);
      for (int32_t p = 0; p < planes; ++p) {
        uint8_t* row = chroma[p].data + y * chroma[p].stride + static_cast<int64_t>(x) * chroma[p].pixel_bytes;
        blend_row(row, chroma[p].pixel_bytes, row_marks, count, fill[p], contour[p]);
      }
    }
  }
}

}  // namespace edgerun
