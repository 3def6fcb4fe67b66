// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "portable.hpp"

namespace edgerun {

// Samples between the horizontal pass and the output carry 6 fractional bits, coefficients 13.
constexpr int kSampleBits = 6;
constexpr int kCoefficientBits = 13;

struct YcbcrToRgb {
  int32_t y_offset;  // 16 or 0
  int32_t y_gain, r_from_v, g_from_u, g_from_v, b_from_u;
};

struct Rgb {
  int32_t r, g, b;
};

EDGERUN_HD EDGERUN_INLINE int32_t clamp_u8(int32_t value) { return value < 0 ? 0 : value > 255 ? 255 : value; }

// Rounds half up, then clamps. y, u, v: 8.6 fixed point.
EDGERUN_HD EDGERUN_INLINE Rgb ycbcr_to_rgb(int32_t y, int32_t u, int32_t v, const YcbcrToRgb& c) {
  constexpr int shift = kSampleBits + kCoefficientBits;
  const int32_t luma = (y - (c.y_offset << kSampleBits)) * c.y_gain + (1 << (shift - 1));
  u -= 128 << kSampleBits;
  v -= 128 << kSampleBits;
  return {clamp_u8((luma + v * c.r_from_v) >> shift), clamp_u8((luma + u * c.g_from_u + v * c.g_from_v) >> shift),
          clamp_u8((luma + u * c.b_from_u) >> shift)};
}

EDGERUN_HD EDGERUN_INLINE int32_t sample_to_u8(int32_t value) {
  return (value + (1 << (kSampleBits - 1))) >> kSampleBits;
}

}  // namespace edgerun
