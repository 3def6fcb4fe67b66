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

// The same for columns, laid out for whole blocks: weight[t * padded_size + i]; 2, 4 or a multiple of 8 taps. Padding
// has weight 0 and stays within kMaxTapPadding samples past the line's end.
struct ColumnTaps {
  const int32_t* start;
  const uint16_t* weight;
  int32_t size, padded_size;
  int32_t taps;
  bool has_two;  // exactly two taps, both inside the plane, were given
};

constexpr int kBlock = 64;
constexpr int kMaxTapPadding = 8;

#ifndef __CUDACC_RTC__  // row loops of the CPU; a GPU thread takes the per-pixel functions above

template <int N>
EDGERUN_INLINE void mix_fixed_rows(Rows rows, const uint16_t* weight, int32_t bytes, bool add,
                                   uint16_t* EDGERUN_RESTRICT line) {
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

// One plane line per component: STEP interleaved ones become STEP lines, `apart` samples from each other.
template <int STEP>
EDGERUN_INLINE void split_line(const uint16_t* EDGERUN_RESTRICT line, int32_t width, int32_t apart,
                               uint16_t* EDGERUN_RESTRICT lines) {
  for (int32_t x = 0; x < width; ++x) {
    for (int c = 0; c < STEP; ++c) lines[c * apart + x] = line[x * STEP + c];
  }
}

// Adds N taps to the sums of a block of columns. The samples under each column are first copied side by side: one
// short copy per column, then straight vector arithmetic, where a gather per tap would cost more than both.
template <int N>
EDGERUN_INLINE void add_taps(const uint16_t* line, const ColumnTaps& taps, int32_t x, int32_t tap,
                             uint32_t* EDGERUN_RESTRICT sum) {
  uint32_t pairs[kBlock * N / 2];
  const int32_t* start = taps.start + x;
  for (int i = 0; i < kBlock; ++i) memcpy(pairs + i * N / 2, line + start[i] + tap, 2 * N);
  const uint16_t* weight = taps.weight + static_cast<int64_t>(tap) * taps.padded_size + x;
  for (int i = 0; i < kBlock; ++i) {
    for (int p = 0; p < N / 2; ++p) {  // little-endian: the earlier sample is the low half
      const uint32_t pair = pairs[i * N / 2 + p];
      sum[i] += (pair & 0xffff) * weight[2 * p * taps.padded_size + i] +
                (pair >> 16) * weight[(2 * p + 1) * taps.padded_size + i];
    }
  }
}

// out = the line at the output columns, 8.6 fixed point, rounded half up.
EDGERUN_INLINE void mix_columns(const uint16_t* line, const ColumnTaps& taps, uint16_t* EDGERUN_RESTRICT out) {
  for (int32_t x = 0; x < taps.padded_size; x += kBlock) {
    uint32_t sum[kBlock];
    for (int i = 0; i < kBlock; ++i) sum[i] = 1u << (kColumnShift - 1);
    if (taps.taps == 2) {
      add_taps<2>(line, taps, x, 0, sum);
    } else if (taps.taps == 4) {
      add_taps<4>(line, taps, x, 0, sum);
    } else {
      for (int32_t tap = 0; tap < taps.taps; tap += 8) add_taps<8>(line, taps, x, tap, sum);
    }
    for (int i = 0; i < kBlock; ++i) out[x + i] = static_cast<uint16_t>(sum[i] >> kColumnShift);
  }
}

// Two taps each way: what mix_rows and mix_columns make, without mixing the columns that lie between the taps. Each
// output's left and right sample make one word, left in the low half, where 255 * 256 fits: both are mixed at once.
struct SampleRows {
  const uint8_t* row[2];
  uint32_t weight[2];
};

EDGERUN_INLINE SampleRows sample_rows(Rows plane, const Taps& taps, int32_t row) {
  const uint16_t* weight = taps.weight + static_cast<int64_t>(row) * taps.taps;
  const uint8_t* first = plane.data + taps.start[row] * plane.stride;
  if (taps.taps == 1) return {{first, first}, {weight[0], 0}};
  return {{first, first + plane.stride}, {weight[0], weight[1]}};
}

// Component C of the two pixels of STEP bytes at `from`, of which `head` has the first 4 bytes and `tail` the last 4.
template <int STEP, int C>
EDGERUN_INLINE uint32_t sample_pair(uint32_t head, uint32_t tail) {
  if (STEP == 1) return (head & 0xff) | (head & 0xff00) << 8;
  if (STEP == 2) return (head >> (8 * C)) & 0xff00ff;
  if (C == 0) return (head & 0xff) | ((head >> 8) & 0xff0000);
  if (C == 1) return ((head >> 8) & 0xff) | (tail & 0xff0000);
  return (tail & 0xff) | ((tail >> 8) & 0xff0000);
}

template <int STEP, int C>
EDGERUN_INLINE void mix_samples(const uint32_t (*head)[kBlock], const uint32_t (*tail)[kBlock], const SampleRows& rows,
                                const uint16_t* left, const uint16_t* right, uint16_t* EDGERUN_RESTRICT out) {
  for (int i = 0; i < kBlock; ++i) {
    const uint32_t pair = sample_pair<STEP, C>(head[0][i], tail[0][i]) * rows.weight[0] +
                          sample_pair<STEP, C>(head[1][i], tail[1][i]) * rows.weight[1];
    const uint32_t sum = (pair & 0xffff) * left[i] + (pair >> 16) * right[i] + (1u << (kColumnShift - 1));
    out[i] = static_cast<uint16_t>(sum >> kColumnShift);
  }
}

template <int STEP>
EDGERUN_INLINE void mix_sparse(const SampleRows& rows, const ColumnTaps& taps, uint16_t* const* lane) {
  uint32_t head[2][kBlock], tail[2][kBlock];
  for (int32_t x = 0; x < taps.padded_size; x += kBlock) {
    for (int i = 0; i < kBlock; ++i) {
      const int64_t at = static_cast<int64_t>(taps.start[x + i]) * STEP;
      for (int r = 0; r < 2; ++r) {
        if (STEP == 1) {
          head[r][i] = *reinterpret_cast<const BytePair*>(rows.row[r] + at);
        } else {
          memcpy(&head[r][i], rows.row[r] + at, 4);
          if (STEP == 3) memcpy(&tail[r][i], rows.row[r] + at + 2, 4);
        }
      }
    }
    const uint32_t(*rest)[kBlock] = STEP == 3 ? tail : head;
    const uint16_t *left = taps.weight + x, *right = left + taps.padded_size;
    mix_samples<STEP, 0>(head, rest, rows, left, right, lane[0] + x);
    if (STEP > 1) mix_samples<STEP, 1>(head, rest, rows, left, right, lane[1] + x);
    if (STEP > 2) mix_samples<STEP, 2>(head, rest, rows, left, right, lane[2] + x);
  }
}

// Whether fetching the samples one by one is cheaper than mixing whole rows, as measured on Zen 5. Interleaved rows
// would have to be split besides.
template <int STEP>
EDGERUN_INLINE bool is_sparse(const Taps& y, const ColumnTaps& x, int32_t width) {
  constexpr int32_t kApart = STEP == 1 ? 4 : 1;
  return y.taps <= 2 && x.has_two && x.size * kApart <= width;
}

// Where one row of model input goes: three channels, each STEP bytes from pixel to pixel.
struct PackedRow {
  uint8_t* r;
  uint8_t* g;
  uint8_t* b;
};

template <int STEP>
EDGERUN_INLINE void store_ycbcr(const uint16_t* EDGERUN_RESTRICT y, const uint16_t* EDGERUN_RESTRICT u,
                                const uint16_t* EDGERUN_RESTRICT v, int32_t width, const YcbcrToRgb colour,
                                uint8_t* EDGERUN_RESTRICT r, uint8_t* EDGERUN_RESTRICT g,
                                uint8_t* EDGERUN_RESTRICT b) {
  for (int32_t x = 0; x < width; ++x) {
    const Rgb rgb = ycbcr_to_rgb(y[x], u[x], v[x], colour);
    r[x * STEP] = static_cast<uint8_t>(rgb.r);
    g[x * STEP] = static_cast<uint8_t>(rgb.g);
    b[x * STEP] = static_cast<uint8_t>(rgb.b);
  }
}

template <int STEP>
EDGERUN_INLINE void store_channel(const uint16_t* EDGERUN_RESTRICT lane, int32_t width,
                                  uint8_t* EDGERUN_RESTRICT out) {
  for (int32_t x = 0; x < width; ++x) out[x * STEP] = static_cast<uint8_t>(sample_to_u8(lane[x]));
}

template <int STEP>
EDGERUN_INLINE void store_rgb(const uint16_t* r, const uint16_t* g, const uint16_t* b, int32_t width, PackedRow out) {
  store_channel<STEP>(r, width, out.r);
  store_channel<STEP>(g, width, out.g);
  store_channel<STEP>(b, width, out.b);
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
  ColumnTaps x, chroma_x;
  Taps y, chroma_y;
  uint16_t* line;     // a row of the widest plane, in samples, and kMaxTapPadding
  uint16_t* lines;    // the same for each component of an interleaved plane
  int32_t apart;      // from one of `lines` to the next
  uint16_t* lane[3];  // padded_size samples each
};

// A plane of one component into one lane, or of STEP interleaved components into as many.
template <int STEP>
EDGERUN_INLINE void mix_plane(const Resize& op, Rows plane, const Taps& y, const ColumnTaps& x, int32_t row,
                              int32_t width, uint16_t* const* lane) {
  if (is_sparse<STEP>(y, x, width)) return mix_sparse<STEP>(sample_rows(plane, y, row), x, lane);
  mix_rows(plane, y, row, STEP * width, op.line);
  if (STEP == 1) return mix_columns(op.line, x, lane[0]);
  split_line<STEP>(op.line, width, op.apart, op.lines);
  for (int c = 0; c < STEP; ++c) mix_columns(op.lines + c * op.apart, x, lane[c]);
}

EDGERUN_INLINE void mix_row(const Resize& op, const Rows* plane, int32_t row) {
  if (op.format == Format::BGR || op.format == Format::RGB) {
    return mix_plane<3>(op, plane[0], op.y, op.x, row, op.width, op.lane);
  }
  mix_plane<1>(op, plane[0], op.y, op.x, row, op.width, op.lane);
  if (op.format == Format::I420) {
    mix_plane<1>(op, plane[1], op.chroma_y, op.chroma_x, row, op.chroma_width, op.lane + 1);
    mix_plane<1>(op, plane[2], op.chroma_y, op.chroma_x, row, op.chroma_width, op.lane + 2);
  } else if (op.format == Format::NV12) {
    mix_plane<2>(op, plane[1], op.chroma_y, op.chroma_x, row, op.chroma_width, op.lane + 1);
  }
}

template <int STEP>
EDGERUN_INLINE void store_row(const Resize& op, PackedRow out) {
  const int32_t width = op.x.size;
  switch (op.format) {
    case Format::I420:
    case Format::NV12:
      store_ycbcr<STEP>(op.lane[0], op.lane[1], op.lane[2], width, op.colour, out.r, out.g, out.b);
      break;
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

#endif  // __CUDACC_RTC__

}  // namespace edgerun
