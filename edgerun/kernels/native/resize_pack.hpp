// SPDX-License-Identifier: Apache-2.0
// Resize, colour conversion and packing in one pass: for each output row the source rows under it are mixed into a
// line, the line is mixed down to the output columns, and those are converted and stored.
#pragma once

#include "ycbcr.hpp"

namespace edgerun {

constexpr int kRowWeightBits = 8;      // 255 << 8 fits uint16: the vertical sum is exact
constexpr int kColumnWeightBits = 14;  // 255 << 22 fits int32: the horizontal sum is exact until its one rounding
constexpr int kColumnShift = kRowWeightBits + kColumnWeightBits - kSampleBits;

struct Rows {
  const uint8_t* data;
  int64_t stride;
};

// Output i is the sum over t < taps of weight[i * taps + t] * source[start[i] + t].
struct Taps {
  const int32_t* start;
  const uint16_t* weight;
  int32_t size;
  int32_t taps;
};

template <int N>
EDGERUN_INLINE void mix_fixed_rows(Rows rows, const uint16_t* weight, int32_t bytes, bool add, uint16_t* line) {
  for (int32_t i = 0; i < bytes; ++i) {
    uint16_t sum = add ? line[i] : 0;
    for (int t = 0; t < N; ++t) sum += static_cast<uint16_t>(weight[t] * rows.data[t * rows.stride + i]);
    line[i] = sum;
  }
}

// line = sum of weighted rows, 8.8 fixed point. Rows of weight 0 at either end are not read.
EDGERUN_INLINE void mix_rows(Rows plane, const Taps& taps, int32_t row, int32_t bytes, uint16_t* line) {
  const uint16_t* weight = taps.weight + static_cast<int64_t>(row) * taps.taps;
  int32_t count = taps.taps;
  Rows rows = {plane.data + taps.start[row] * plane.stride, plane.stride};
  while (count > 1 && weight[count - 1] == 0) --count;
  while (count > 1 && weight[0] == 0) --count, ++weight, rows.data += rows.stride;
  for (bool add = false; count > 0; add = true) {
    const int32_t now = count < 6 ? count : 4;
    switch (now) {
      case 1: mix_fixed_rows<1>(rows, weight, bytes, add, line); break;
      case 2: mix_fixed_rows<2>(rows, weight, bytes, add, line); break;
      case 3: mix_fixed_rows<3>(rows, weight, bytes, add, line); break;
      case 4: mix_fixed_rows<4>(rows, weight, bytes, add, line); break;
      default: mix_fixed_rows<5>(rows, weight, bytes, add, line); break;
    }
    count -= now, weight += now, rows.data += now * rows.stride;
  }
}

template <int STEP, int N>
EDGERUN_INLINE void mix_fixed_columns(const uint16_t* line, const Taps& taps, int32_t count, uint16_t* out) {
  const int32_t n = N > 0 ? N : count;
  for (int32_t x = 0; x < taps.size; ++x) {
    const uint16_t* source = line + static_cast<int64_t>(taps.start[x]) * STEP;
    const uint16_t* weight = taps.weight + static_cast<int64_t>(x) * n;
    uint32_t sum = 1u << (kColumnShift - 1);
    for (int32_t t = 0; t < n; ++t) sum += static_cast<uint32_t>(source[t * STEP]) * weight[t];
    out[x] = static_cast<uint16_t>(sum >> kColumnShift);
  }
}

// out = the line at the output columns, 8.6 fixed point, rounded half up. STEP: samples from one pixel to the next.
template <int STEP>
EDGERUN_INLINE void mix_columns(const uint16_t* line, const Taps& taps, uint16_t* out) {
  switch (taps.taps) {
    case 1: mix_fixed_columns<STEP, 1>(line, taps, 1, out); break;
    case 2: mix_fixed_columns<STEP, 2>(line, taps, 2, out); break;
    case 4: mix_fixed_columns<STEP, 4>(line, taps, 4, out); break;
    case 8: mix_fixed_columns<STEP, 8>(line, taps, 8, out); break;
    default: mix_fixed_columns<STEP, 0>(line, taps, taps.taps, out); break;
  }
}

// Where one row of model input goes: three channels, each `step` bytes from pixel to pixel.
struct PackedRow {
  uint8_t* r;
  uint8_t* g;
  uint8_t* b;
};

template <int STEP>
EDGERUN_INLINE void store_ycbcr(const uint16_t* y, const uint16_t* u, const uint16_t* v, int32_t width,
                                const YcbcrToRgb& colour, PackedRow out) {
  for (int32_t x = 0; x < width; ++x) {
    const Rgb rgb = ycbcr_to_rgb(y[x], u[x], v[x], colour);
    out.r[x * STEP] = static_cast<uint8_t>(rgb.r);
    out.g[x * STEP] = static_cast<uint8_t>(rgb.g);
    out.b[x * STEP] = static_cast<uint8_t>(rgb.b);
  }
}

template <int STEP>
EDGERUN_INLINE void store_rgb(const uint16_t* r, const uint16_t* g, const uint16_t* b, int32_t width, PackedRow out) {
  for (int32_t x = 0; x < width; ++x) {
    out.r[x * STEP] = static_cast<uint8_t>(sample_to_u8(r[x]));
    out.g[x * STEP] = static_cast<uint8_t>(sample_to_u8(g[x]));
    out.b[x * STEP] = static_cast<uint8_t>(sample_to_u8(b[x]));
  }
}

enum class Format : int32_t { I420 = 0, NV12 = 1, BGR = 2, RGB = 3, MONO = 4 };

struct Resize {
  Format format;
  int32_t width, chroma_width;  // of the source planes, in pixels
  int32_t out_width, out_height;
  int32_t left, top;  // of the picture inside the output; the rest is `pad`
  uint8_t pad;
  bool interleaved, bgr;
  YcbcrToRgb colour;
  Taps x, y, chroma_x, chroma_y;
  uint16_t* line;      // widest plane row, in samples
  uint16_t* lane[3];   // out_width samples each
};

EDGERUN_INLINE void mix_row(const Resize& op, const Rows* plane, int32_t row) {
  switch (op.format) {
    case Format::I420:
    case Format::NV12:
    case Format::MONO:
      mix_rows(plane[0], op.y, row, op.width, op.line);
      mix_columns<1>(op.line, op.x, op.lane[0]);
      break;
    case Format::BGR:
    case Format::RGB:
      mix_rows(plane[0], op.y, row, 3 * op.width, op.line);
      for (int c = 0; c < 3; ++c) mix_columns<3>(op.line + c, op.x, op.lane[c]);
      break;
  }
  if (op.format == Format::I420) {
    for (int c = 1; c < 3; ++c) {
      mix_rows(plane[c], op.chroma_y, row, op.chroma_width, op.line);
      mix_columns<1>(op.line, op.chroma_x, op.lane[c]);
    }
  } else if (op.format == Format::NV12) {
    mix_rows(plane[1], op.chroma_y, row, 2 * op.chroma_width, op.line);
    for (int c = 0; c < 2; ++c) mix_columns<2>(op.line + c, op.chroma_x, op.lane[c + 1]);
  }
}

template <int STEP>
EDGERUN_INLINE void store_row(const Resize& op, PackedRow out) {
  const int32_t width = op.x.size;
  switch (op.format) {
    case Format::I420:
    case Format::NV12: store_ycbcr<STEP>(op.lane[0], op.lane[1], op.lane[2], width, op.colour, out); break;
    case Format::BGR: store_rgb<STEP>(op.lane[2], op.lane[1], op.lane[0], width, out); break;
    case Format::RGB: store_rgb<STEP>(op.lane[0], op.lane[1], op.lane[2], width, out); break;
    case Format::MONO: store_rgb<STEP>(op.lane[0], op.lane[0], op.lane[0], width, out); break;
  }
}

// Pads `rows` rows of `row_bytes` at `stride` left and right of the picture, and fills the rows above and below it.
EDGERUN_INLINE void pad_around(const Resize& op, uint8_t* out, int64_t pixel_bytes) {
  const int64_t row = op.out_width * pixel_bytes, left = op.left * pixel_bytes;
  const int64_t right = left + op.x.size * pixel_bytes;
  const int64_t below = op.top + op.y.size;
  if (op.top > 0) memset(out, op.pad, op.top * row);
  if (below < op.out_height) memset(out + below * row, op.pad, (op.out_height - below) * row);
  if (left == 0 && right == row) return;
  for (int64_t y = op.top; y < below; ++y) {
    memset(out + y * row, op.pad, left);
    memset(out + y * row + right, op.pad, row - right);
  }
}

EDGERUN_INLINE void resize_pack_rows(const Resize& op, const Rows* plane, uint8_t* out) {
  const int64_t channel = static_cast<int64_t>(op.out_width) * op.out_height;
  const int first = op.bgr ? 2 : 0, last = 2 - first;
  if (op.interleaved) {
    pad_around(op, out, 3);
  } else {
    for (int c = 0; c < 3; ++c) pad_around(op, out + c * channel, 1);
  }
  for (int32_t row = 0; row < op.y.size; ++row) {
    mix_row(op, plane, row);
    const int64_t at = static_cast<int64_t>(op.top + row) * op.out_width + op.left;
    if (op.interleaved) {
      store_row<3>(op, {out + 3 * at + first, out + 3 * at + 1, out + 3 * at + last});
    } else {
      store_row<1>(op, {out + first * channel + at, out + channel + at, out + last * channel + at});
    }
  }
}

}  // namespace edgerun
