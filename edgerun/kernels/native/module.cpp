// SPDX-License-Identifier: Apache-2.0
// edgerun.kernels._native: what Python calls. The Python side checks shapes and types and words the errors (for blend,
// which is short, the check is here and only the words are there), so this module is private to edgerun.kernels.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/array.h>

#include <array>
#include <cstdint>
#include <vector>

#include "blend.hpp"
#include "blend_avx512.hpp"
#include "buffer.hpp"
#include "resize_pack.hpp"
#include "threshold.hpp"

namespace nb = nanobind;

namespace edgerun {

// The clones: everything below these calls is inlined into them.
EDGERUN_CLONES void resize_pack(const Resize& op, const Rows* planes, uint8_t* out) {
  resize_pack_rows(op, planes, out);
}

EDGERUN_CLONES void blend_planes(const Plane* planes, int32_t luma_bytes, int32_t chroma_bytes, const Marks& marks,
                                 const Tint* fill, const Tint* contour) {
  blend_picture<PortableBlend>(planes, luma_bytes, chroma_bytes, marks, fill, contour);
}

#ifdef EDGERUN_AVX512
const auto blend_planes_here = __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl")
                                   ? blend_picture_avx512
                                   : blend_planes;
#else
const auto blend_planes_here = blend_planes;
#endif

EDGERUN_CLONES void threshold(const Grid& grid, const Window& out) { threshold_window(grid, out); }

namespace {

using Pixels = nb::ndarray<const uint8_t, nb::device::cpu>;
using MutablePixels = nb::ndarray<uint8_t, nb::device::cpu>;
using Starts = nb::ndarray<const int32_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Weights = nb::ndarray<const uint16_t, nb::ndim<2>, nb::c_contig, nb::device::cpu>;

Rows rows_of(const Pixels& plane) { return {plane.data(), plane.stride(0)}; }

struct OwnedTaps {
  std::vector<int32_t> start;
  std::vector<uint16_t> weight;
  int32_t taps;

  OwnedTaps(const Starts& starts, const Weights& weights)
      : start(starts.data(), starts.data() + starts.size()),
        weight(weights.data(), weights.data() + weights.size()),
        taps(static_cast<int32_t>(weights.shape(1))) {}

  Taps view() const { return {start.data(), weight.data(), static_cast<int32_t>(start.size()), taps}; }
};

int32_t rounded_up(size_t value, int32_t multiple) {
  return (static_cast<int32_t>(value) + multiple - 1) / multiple * multiple;
}

// The table in the layout of ColumnTaps.
struct OwnedColumnTaps {
  int32_t size, padded_size, taps;
  bool has_two;
  std::vector<int32_t> start;
  std::vector<uint16_t> weight;

  OwnedColumnTaps(const Starts& starts, const Weights& weights)
      : size(static_cast<int32_t>(starts.size())),
        padded_size(rounded_up(starts.size(), kBlock)),
        taps(weights.shape(1) <= 2 ? 2 : weights.shape(1) <= 4 ? 4 : rounded_up(weights.shape(1), 8)),
        has_two(weights.shape(1) == 2),
        start(padded_size),
        weight(static_cast<size_t>(padded_size) * taps) {
    const size_t given = weights.shape(1);
    for (int32_t i = 0; i < size; ++i) {
      start[i] = starts.data()[i];
      for (size_t t = 0; t < given; ++t) weight[t * padded_size + i] = weights.data()[i * given + t];
    }
  }

  ColumnTaps view() const { return {start.data(), weight.data(), size, padded_size, taps, has_two}; }
};

// Everything a stream of equal frames needs, allocated once. Not for two threads at a time: they'd share the scratch.
class ResizePack {
 public:
  ResizePack(int32_t format, int32_t width, std::array<int32_t, 2> out_size, std::array<int32_t, 2> offset,
             uint8_t pad, bool interleaved, bool bgr, std::array<int32_t, 6> colour, Starts x_start, Weights x_weight,
             Starts y_start, Weights y_weight, Starts chroma_x_start, Weights chroma_x_weight, Starts chroma_y_start,
             Weights chroma_y_weight)
      : x_(x_start, x_weight),
        chroma_x_(chroma_x_start, chroma_x_weight),
        y_(y_start, y_weight),
        chroma_y_(chroma_y_start, chroma_y_weight),
        line_(3 * (static_cast<size_t>(width) + kMaxTapPadding)),
        lines_(line_.size()),
        lanes_(3 * static_cast<size_t>(x_.padded_size)) {
    uint16_t* lane = lanes_.data();
    op_ = {static_cast<Format>(format), width, (width + 1) / 2, out_size[0], out_size[1], offset[0], offset[1], pad,
           interleaved, bgr,
           {colour[0], colour[1], colour[2], colour[3], colour[4], colour[5]},
           x_.view(), chroma_x_.view(), y_.view(), chroma_y_.view(),
           line_.data(), lines_.data(), width + kMaxTapPadding,
           {lane, lane + x_.padded_size, lane + 2 * x_.padded_size}};
  }

  ResizePack(const ResizePack&) = delete;

  void write(const Pixels& first, const Pixels& second, const Pixels& third, const MutablePixels& out) const {
    const Rows planes[3] = {rows_of(first), rows_of(second), rows_of(third)};
    uint8_t* target = out.data();
    nb::gil_scoped_release release;
    resize_pack(op_, planes, target);
  }

 private:
  OwnedColumnTaps x_, chroma_x_;
  OwnedTaps y_, chroma_y_;
  std::vector<uint16_t> line_, lines_, lanes_;
  Resize op_;
};

void set_tint(Tint& tint, const uint8_t* pixel, int32_t pixel_bytes, int32_t alpha) {
  tint.keep = static_cast<uint16_t>(256 - alpha);
  uint16_t add[6];  // the pattern of pairs repeats after three pairs at the latest
  for (int32_t i = 0; i < 6; ++i) add[i] = static_cast<uint16_t>(pixel[i % pixel_bytes] * alpha + 128);
  for (int32_t i = 0; i < kPattern / 2; i += 3) {
    for (int32_t p = 0; p < 3; ++p) {
      tint.add_even[i + p] = add[2 * p];
      tint.add_odd[i + p] = add[2 * p + 1];
    }
  }
}

struct PlaneLayout {
  int32_t count, bytes, chroma_bytes;  // planes; bytes of a pixel of the first and of the others
};

PlaneLayout layout_of(Format format) {
  switch (format) {
    case Format::I420: return {3, 1, 1};
    case Format::NV12: return {2, 1, 2};
    case Format::MONO: return {1, 1, 0};
    default: return {1, 3, 0};
  }
}

bool open_planes(const nb::tuple& objects, PlaneLayout layout, Buffer* buffers, Plane* planes) {
  if (static_cast<int32_t>(objects.size()) != layout.count) return false;
  for (int32_t p = 0; p < layout.count; ++p) {
    if (!buffers[p].open(objects[p].ptr(), true) || buffers[p].axes() < 2) return false;
    const bool is_chroma = p > 0;
    const int32_t bytes = is_chroma ? layout.chroma_bytes : layout.bytes;
    const int32_t height = is_chroma ? (planes[0].height + 1) / 2 : buffers[0].size(0);
    const int32_t width = is_chroma ? (planes[0].width + 1) / 2 : buffers[0].size(1);
    if ((buffers[p].axes() == 3) != (bytes == 3) || !buffers[p].has_rows(height, width, bytes)) return false;
    planes[p] = {buffers[p].data(), buffers[p].stride(), width, height};
  }
  return true;
}

bool is_inside(const Marks& window, const Plane& picture) {
  return window.x >= 0 && window.y >= 0 && window.width > 0 && window.height > 0 &&
         window.width <= picture.width - window.x && window.height <= picture.height - window.y;
}

// False, and nothing done, where the arguments don't fit together: the caller finds the words. `fill` and `contour`:
// the bytes of one pixel of each plane, one plane after the other.
bool blend(const nb::tuple& objects, int32_t format, nb::handle marks, std::array<int32_t, 4> window,
           std::array<uint8_t, 3> fill, int32_t fill_alpha, std::array<uint8_t, 3> contour, int32_t contour_alpha) {
  const PlaneLayout layout = layout_of(static_cast<Format>(format));
  Buffer buffers[3], mark_buffer;
  Plane planes[3];
  if (!open_planes(objects, layout, buffers, planes) || !mark_buffer.open(marks.ptr(), false)) return false;
  const Marks where = {mark_buffer.data(), mark_buffer.stride(), window[0], window[1], window[2], window[3]};
  if (mark_buffer.axes() != 2 || !mark_buffer.has_rows(where.height, where.width, 1)) return false;
  if (!is_inside(where, planes[0]) || fill_alpha < 0 || fill_alpha > 256 || contour_alpha < 0 || contour_alpha > 256) {
    return false;
  }
  Tint fills[3], contours[3];
  for (int32_t p = 0, component = 0; p < layout.count; ++p) {
    const int32_t bytes = p == 0 ? layout.bytes : layout.chroma_bytes;
    set_tint(fills[p], &fill[component], bytes, fill_alpha);
    set_tint(contours[p], &contour[component], bytes, contour_alpha);
    component += bytes;
  }
  nb::gil_scoped_release release;
  blend_planes_here(planes, layout.bytes, layout.chroma_bytes, where, fills, contours);
  return true;
}

void threshold_into(const nb::ndarray<const float, nb::ndim<2>, nb::device::cpu>& logits,
                    std::array<double, 4> geometry, float level, std::array<int32_t, 2> corner,
                    const MutablePixels& out) {
  const Grid grid = {logits.data(), logits.stride(0),
                     {1.0 / geometry[0], geometry[2], static_cast<int32_t>(logits.shape(1))},
                     {1.0 / geometry[1], geometry[3], static_cast<int32_t>(logits.shape(0))}, level};
  const Window window = {out.data(), out.stride(0), corner[0], corner[1], static_cast<int32_t>(out.shape(1)),
                         static_cast<int32_t>(out.shape(0))};
  nb::gil_scoped_release release;
  threshold(grid, window);
}

}  // namespace
}  // namespace edgerun

NB_MODULE(_native, m) {
  nb::set_leak_warnings(false);  // a daemon thread may hold a kernel when the interpreter ends
  using namespace edgerun;
  nb::class_<ResizePack>(m, "ResizePack")
      .def(nb::init<int32_t, int32_t, std::array<int32_t, 2>, std::array<int32_t, 2>, uint8_t, bool, bool,
                    std::array<int32_t, 6>, Starts, Weights, Starts, Weights, Starts, Weights, Starts, Weights>())
      .def("write", &ResizePack::write);
  m.def("blend", &blend);
  m.def("threshold", &threshold_into);
  m.attr("x86_level") = EDGERUN_X86_LEVEL;
}
