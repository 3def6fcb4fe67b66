// SPDX-License-Identifier: Apache-2.0
// Bilinear upsampling and thresholding in one pass over the cells of the logit grid. A cell is the square between
// four neighbouring logits; where all four are on the same side of the threshold so is everything between them.
#pragma once

#include "portable.hpp"

namespace edgerun {

// Along one axis: grid position = (source + 0.5) * per_source - 0.5 + offset.
struct GridAxis {
  double per_source, offset;
  int32_t size;  // of the grid
};

struct Grid {
  const float* data;
  int64_t stride;  // in floats
  GridAxis x, y;
  float threshold;
};

struct Window {
  uint8_t* data;
  int64_t stride;
  int32_t x, y, width, height;  // source pixels
};

EDGERUN_HD EDGERUN_INLINE double grid_position(const GridAxis& axis, int32_t source) {
  return (source + 0.5) * axis.per_source - 0.5 + axis.offset;
}

// Cell c lies between grid samples c and c + 1; -1 and size - 1 are the borders, where the edge sample is repeated.
EDGERUN_HD EDGERUN_INLINE int32_t cell_at(const GridAxis& axis, int32_t source) {
  const double at = grid_position(axis, source);
  if (at < 0) return -1;
  return at >= axis.size - 1 ? axis.size - 1 : static_cast<int32_t>(at);
}

// First source position, within (begin, end], that is past the cell.
EDGERUN_HD EDGERUN_INLINE int32_t cell_end(const GridAxis& axis, int32_t cell, int32_t begin, int32_t end) {
  if (cell >= axis.size - 1) return end;
  const double at = (cell + 1.5 - axis.offset) / axis.per_source - 0.5;
  if (at >= end) return end;
  if (at <= begin + 1) return begin + 1;
  const int32_t whole = static_cast<int32_t>(at);
  return whole < at ? whole + 1 : whole;
}

EDGERUN_HD EDGERUN_INLINE float mix(float a, float b, float weight) { return a * (1.0f - weight) + b * weight; }

struct GridRows {
  const float* upper;
  const float* lower;
};

// 0 or 1: every pixel of the cell; 2: mixed.
EDGERUN_HD EDGERUN_INLINE int32_t cell_class(const Grid& grid, GridRows rows, int32_t cell) {
  const int32_t left = cell < 0 ? 0 : cell, right = cell + 1 < grid.x.size ? cell + 1 : grid.x.size - 1;
  const int32_t above = (rows.upper[left] > grid.threshold) + (rows.upper[right] > grid.threshold) +
                        (rows.lower[left] > grid.threshold) + (rows.lower[right] > grid.threshold);
  return above == 0 ? 0 : above == 4 ? 1 : 2;
}

#ifndef __CUDACC_RTC__  // row loops of the CPU; a GPU thread takes the per-pixel functions above

EDGERUN_INLINE void fill_cell(uint8_t* out, int64_t stride, int32_t width, int32_t height, int32_t value) {
  for (int32_t y = 0; y < height; ++y) memset(out + y * stride, value, width);
}

constexpr int32_t kColumns = 16;  // interpolated at a time

// Each row is written kColumns wide where the window has room, however narrow the cell: what is past it is written
// again by the cell it belongs to, and no loop has a variable length.
EDGERUN_INLINE void interpolate_columns(const Grid& grid, GridRows rows, int32_t cell, int32_t row_cell, int32_t x,
                                        int32_t x_end, int32_t y, int32_t y_end, const Window& out) {
  const int32_t left = cell < 0 ? 0 : cell, right = cell + 1 < grid.x.size ? cell + 1 : grid.x.size - 1;
  const float level = grid.threshold;
  const double first = grid_position(grid.x, x) - cell, step = grid.x.per_source;
  float across[kColumns];
#pragma GCC unroll 1
  for (int i = 0; i < kColumns; ++i) across[i] = static_cast<float>(first + i * step);
  const bool has_room = x + kColumns <= out.x + out.width;
  for (int32_t row = y; row < y_end; ++row) {
    const float weight = static_cast<float>(grid_position(grid.y, row) - row_cell);
    const float a = mix(rows.upper[left], rows.lower[left], weight);
    const float b = mix(rows.upper[right], rows.lower[right], weight);
    uint8_t above[kColumns];
#pragma GCC unroll 1  // a loop that is unrolled first is not vectorised
    for (int i = 0; i < kColumns; ++i) above[i] = mix(a, b, across[i]) > level ? 1 : 0;
    uint8_t* pixels = out.data + (row - out.y) * out.stride + (x - out.x);
    if (has_room) {
      memcpy(pixels, above, kColumns);
    } else {
      for (int32_t i = 0; i < x_end - x; ++i) pixels[i] = above[i];
    }
  }
}

EDGERUN_INLINE void interpolate_cell(const Grid& grid, GridRows rows, int32_t cell, int32_t row_cell, int32_t x,
                                     int32_t x_end, int32_t y, int32_t y_end, const Window& out) {
  for (; x < x_end; x += kColumns) {
    const int32_t end = x_end - x < kColumns ? x_end : x + kColumns;
    interpolate_columns(grid, rows, cell, row_cell, x, end, y, y_end, out);
  }
}

constexpr int32_t kCellChunk = 256;  // cells classified at a time, on the stack

// Classes of `count` cells from `first` on.
EDGERUN_INLINE void classify_cells(const Grid& grid, GridRows rows, int32_t first, int32_t count,
                                   uint8_t* EDGERUN_RESTRICT kinds) {
  const float level = grid.threshold;
  const int32_t inner_begin = first < 0 ? 0 : first;
  const int32_t inner_end = first + count < grid.x.size ? first + count : grid.x.size - 1;
  if (first < 0) kinds[0] = static_cast<uint8_t>(cell_class(grid, rows, first));
  const float* upper = rows.upper + inner_begin;
  const float* lower = rows.lower + inner_begin;
  uint8_t* inner = kinds + (inner_begin - first);
  for (int32_t i = 0; i < inner_end - inner_begin; ++i) {
    const bool any = (upper[i] > level) | (upper[i + 1] > level) | (lower[i] > level) | (lower[i + 1] > level);
    const bool all = (upper[i] > level) & (upper[i + 1] > level) & (lower[i] > level) & (lower[i + 1] > level);
    inner[i] = static_cast<uint8_t>(any == all ? all : 2);
  }
  for (int32_t cell = inner_end < inner_begin ? inner_begin : inner_end; cell < first + count; ++cell) {
    kinds[cell - first] = static_cast<uint8_t>(cell_class(grid, rows, cell));
  }
}

// Fills source rows [y, y_end), all within the cells of grid row `row_cell`. Equal neighbours are filled as one.
EDGERUN_INLINE void threshold_cell_row(const Grid& grid, int32_t row_cell, int32_t y, int32_t y_end,
                                       const Window& out) {
  const int32_t upper = row_cell < 0 ? 0 : row_cell, lower = row_cell + 1 < grid.y.size ? row_cell + 1 : upper;
  const GridRows rows = {grid.data + upper * grid.stride, grid.data + lower * grid.stride};
  const int32_t end = out.x + out.width, cells_end = cell_at(grid.x, end - 1) + 1;
  uint8_t kinds[kCellChunk];
  int32_t chunk = 0, chunk_end = -1;
  for (int32_t x = out.x; x < end;) {
    const int32_t first = cell_at(grid.x, x);
    if (first >= chunk_end) {
      chunk = first;
      chunk_end = cells_end - chunk < kCellChunk ? cells_end : chunk + kCellChunk;
      classify_cells(grid, rows, chunk, chunk_end - chunk, kinds);
    }
    const uint8_t kind = kinds[first - chunk];
    int32_t last = first;
    while (kind != 2 && last + 1 < chunk_end && kinds[last + 1 - chunk] == kind) ++last;
    const int32_t x_end = cell_end(grid.x, last, x, end);
    if (kind == 2) {
      interpolate_cell(grid, rows, first, row_cell, x, x_end, y, y_end, out);
    } else {
      fill_cell(out.data + (y - out.y) * out.stride + (x - out.x), out.stride, x_end - x, y_end - y, kind);
    }
    x = x_end;
  }
}

EDGERUN_INLINE void threshold_window(const Grid& grid, const Window& out) {
  const int32_t end = out.y + out.height;
  for (int32_t y = out.y; y < end;) {
    const int32_t cell = cell_at(grid.y, y);
    const int32_t y_end = cell_end(grid.y, cell, y, end);
    threshold_cell_row(grid, cell, y, y_end, out);
    y = y_end;
  }
}

#endif  // __CUDACC_RTC__

}  // namespace edgerun
