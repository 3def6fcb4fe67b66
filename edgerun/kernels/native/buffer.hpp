// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <Python.h>

#include <cstdint>

namespace edgerun {

// A view of a Python object's uint8 buffer for as long as this lives; false if the object doesn't offer one of that
// kind. Needs the GIL at both ends. A third of the cost of a nanobind ndarray.
class Buffer {
 public:
  Buffer() = default;
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  ~Buffer() {
    if (view_.obj != nullptr) PyBuffer_Release(&view_);
  }

  bool open(PyObject* object, bool writeable) {
    if (PyObject_GetBuffer(object, &view_, PyBUF_STRIDES | PyBUF_FORMAT | (writeable ? PyBUF_WRITABLE : 0)) != 0) {
      PyErr_Clear();
      view_.obj = nullptr;
      return false;
    }
    return view_.format != nullptr && view_.format[0] == 'B' && view_.format[1] == '\0';
  }

  // Of this shape, with contiguous rows that may lie apart; the strides of axes of one element say nothing.
  bool has_rows(int32_t height, int32_t width, int32_t pixel_bytes) const {
    if (view_.ndim == 2) return is(0, height) && is(1, width * pixel_bytes) && is_dense(1, 1);
    return view_.ndim == 3 && is(0, height) && is(1, width) && is(2, pixel_bytes) && is_dense(1, pixel_bytes) &&
           is_dense(2, 1);
  }

  int32_t axes() const { return view_.ndim; }
  int32_t size(int axis) const { return static_cast<int32_t>(view_.shape[axis]); }
  uint8_t* data() const { return static_cast<uint8_t*>(view_.buf); }
  int64_t stride() const { return view_.strides[0]; }

 private:
  bool is(int axis, int32_t size) const { return view_.shape[axis] == size; }
  bool is_dense(int axis, int32_t stride) const { return view_.shape[axis] == 1 || view_.strides[axis] == stride; }

  Py_buffer view_ = {};
};

}  // namespace edgerun
