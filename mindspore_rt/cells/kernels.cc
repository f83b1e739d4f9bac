// Fused CPU kernels, called by MindSpore as ops.Custom(func_type="aot"); the cells in `kernel_cells.py` use them.
//
// Each makes one pass over memory, in float32. Its formula stands above it, then its inputs -> outputs. Random numbers
// are a function of (key, place, index of the element): a backward kernel draws its forward kernel's noise again instead
// of storing it, and a resumed run draws the same. Work is split into pieces of fixed size and sums are taken in a fixed
// order, so results do not depend on the number of threads. NaN and infinity pass through.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

namespace {

// ---------------------------------------------------------------------------------------------------- arguments

// Inputs, then outputs, as MindSpore passes them to a kernel.
struct Arguments {
  void **data;
  int *ranks;
  int64_t **shapes;

  template <class Number = float>
  Number *at(int index) const { return static_cast<Number *>(data[index]); }

  int64_t size(int index) const {
    int64_t size = 1;
    for (int axis = 0; axis < ranks[index]; ++axis) size *= shapes[index][axis];
    return size;
  }

  // Length of an axis, counted from the end: 1 is the last.
  int64_t axis(int index, int from_end) const { return shapes[index][ranks[index] - from_end]; }
};

// body(begin, end) over pieces of fixed size. An element's place in its piece decides whether the vector loop or its
// remainder computes it: pieces that depended on the number of threads would change last bits.
const int64_t PIECE = 4096;

template <class Body>
void for_pieces(int64_t size, Body body) {
  const int64_t pieces = (size + PIECE - 1) / PIECE;
#pragma omp parallel for schedule(static)
  for (int64_t i = 0; i < pieces; ++i) body(i * PIECE, std::min(size, (i + 1) * PIECE));
}

// Sum of term(i): within each piece in float32, over the pieces in float64 and in their order.
template <class Term>
float sum_up(int64_t size, Term term) {
  std::vector<float> sums((size + PIECE - 1) / PIECE);
  float *sum_of_piece = sums.data();
  for_pieces(size, [=](int64_t begin, int64_t end) {
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = begin; i < end; ++i) sum += term(i);
    sum_of_piece[begin / PIECE] = sum;
  });
  double total = 0;
  for (float sum : sums) total += sum;
  return static_cast<float>(total);
}

template <class Body>
void for_rows(int64_t rows, Body body) {
#pragma omp parallel for schedule(static)
  for (int64_t row = 0; row < rows; ++row) body(row);
}

// body(first, width) over strips of columns, for sums over rows: within a strip they run down the rows in order.
const int64_t STRIP = 32;

template <class Body>
void for_strips(int64_t columns, Body body) {
  for_rows((columns + STRIP - 1) / STRIP, [=](int64_t index) {
    body(index * STRIP, std::min(STRIP, columns - index * STRIP));
  });
}

// y[i, k, j, :] = x[i, j, k, :], x of shape (any, b, c, width).
void swap_middle(const float *x, float *y, int64_t size, int64_t b, int64_t c, int64_t width) {
  for_rows(size / (c * width), [=](int64_t row) {
    const int64_t i = row / b, j = row % b;
    for (int64_t k = 0; k < c; ++k)
      std::memcpy(y + ((i * c + k) * b + j) * width, x + (row * c + k) * width, width * sizeof(float));
  });
}

// -------------------------------------------------------------------------------------------------- random numbers

// A bijection of 32-bit words whose outputs look random (C. Wellons, hash-prospector, two rounds).
inline uint32_t scramble(uint32_t x) {
  x = (x ^ (x >> 16)) * 0x21f0aaadu;
  x = (x ^ (x >> 15)) * 0xd35a2d97u;
  return x ^ (x >> 15);
}

// Uniform numbers in [0, 1) of one place in one pass. The key (seed, rank, step, ascent) and the place are five words,
// absorbed one after the other by the finaliser of SplitMix64 (Steele et al. 2014), a bijection of 64 bits: keys that
// differ in one word never collide, others with probability 2^-64. `kernels.uniform` restates this in NumPy.
struct Noise {
  uint32_t low, high;

  Noise(const uint32_t *key, const uint32_t *place) {
    const uint32_t words[5] = {key[0], key[1], key[2], key[3], place[0]};
    uint64_t state = 0;
    for (uint32_t word : words) {
      state = (state + 0x9e3779b97f4a7c15ull) ^ word;
      state = (state ^ (state >> 30)) * 0xbf58476d1ce4e5b9ull;
      state = (state ^ (state >> 27)) * 0x94d049bb133111ebull;
      state ^= state >> 31;
    }
    low = static_cast<uint32_t>(state);
    high = static_cast<uint32_t>(state >> 32);
  }

  inline float operator()(int64_t index) const {
    const uint32_t bits = scramble(scramble(static_cast<uint32_t>(index) ^ low) + high);
    return static_cast<float>(static_cast<int32_t>(bits >> 8)) * (1.0f / 16777216.0f);
  }
};

// Inverted dropout: 0 with probability `rate`, else 1 / (1 - rate).
struct Dropout {
  Noise noise;
  float rate, kept;

  Dropout(const uint32_t *key, const uint32_t *place, float rate)
      : noise(key, place), rate(rate), kept(1.0f / (1.0f - rate)) {}

  inline float operator()(int64_t index) const { return noise(index) >= rate ? kept : 0.0f; }
};

// ------------------------------------------------------------------------------------------------------- functions

// e^x to 2 units in the last place: 2^n e^r with x = n log 2 + r, |r| <= log(2) / 2, and the polynomial of the Cephes
// library for e^r. 0 below -87 and e^88 above 88, where float32 ends. Unlike std::exp the compiler can vectorise it.
inline float exponential(float x) {
  const float rounder = 12582912.0f;  // 1.5 * 2^23: adding it rounds to a whole number
  float bounded = x < -87.0f ? -87.0f : x;
  bounded = bounded > 88.0f ? 88.0f : bounded;
  const float shifted = bounded * 1.44269504f + rounder, n = shifted - rounder;
  const float r = (bounded - n * 0.693359375f) + n * 2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  int32_t bits;
  std::memcpy(&bits, &shifted, 4);
  bits = static_cast<int32_t>(static_cast<uint32_t>(bits) << 23) + 0x3f800000;  // the low bits of `shifted` are n
  float power;
  std::memcpy(&power, &bits, 4);
  const float result = (p * r * r + r + 1.0f) * power;
  return x < -87.0f ? 0.0f : result;
}

inline float clamp(float x, float low, float high) {
  x = x < low ? low : x;
  return x > high ? high : x;
}

// Distribution function of the normal distribution, with `bell` = e^(-x^2 / 2) at hand: Abramowitz and Stegun 7.1.26,
// absolute error below 1e-7.
inline float normal_distribution(float x, float bell) {
  const float t = 1.0f / (1.0f + 0.3275911f * 0.70710678f * std::fabs(x));
  float p = 1.061405429f;
  p = p * t - 1.453152027f;
  p = p * t + 1.421413741f;
  p = p * t - 0.284496736f;
  p = p * t + 0.254829592f;
  const float tail = 0.5f * p * t * bell;
  return x < 0.0f ? tail : 1.0f - tail;
}

// probability = softmax(factor * score + pad), over one row; `pad` is the row of padding.
inline void softmax_row(const float *score, const float *pad, float factor, int64_t length, float *probability) {
  float highest = -INFINITY, sum = 0;
#pragma omp simd reduction(max : highest)
  for (int64_t j = 0; j < length; ++j) {
    probability[j] = score[j] * factor + pad[j];
    highest = probability[j] > highest ? probability[j] : highest;
  }
#pragma omp simd reduction(+ : sum)
  for (int64_t j = 0; j < length; ++j) sum += probability[j] = exponential(probability[j] - highest);
  const float inverse = 1.0f / sum;
#pragma omp simd
  for (int64_t j = 0; j < length; ++j) probability[j] *= inverse;
}

// Constants of the hard-concrete gate, as in gate.py; L0_SHIFT = beta log(-gamma / zeta).
const float GAMMA = -0.1f, WIDTH = 1.2f, INVERSE_BETA = 1.5f, U_MIN = 1e-4f, L0_SHIFT = -1.59859685f;

// Eq. 2: s = sigmoid((log u - log(1 - u) + log alpha) / beta) = 1 / (1 + ((1 - u) / u)^1.5 e^(-1.5 log alpha)).
inline float concrete(float u, float log_alpha) {
  u = clamp(u, U_MIN, 1.0f - U_MIN);
  const float odds = (1.0f - u) / u;
  return 1.0f / (1.0f + odds * std::sqrt(odds) * exponential(-INVERSE_BETA * log_alpha));
}

// One update of AdamW in the reference form, in place:
//   m = beta1 m + (1 - beta1) g,  v = beta2 v + (1 - beta2) g^2,
//   p = p - lr sqrt(1 - beta2^t) / (1 - beta1^t) m / (sqrt(v) + epsilon),  then  p = p - shrink p.
// Of n parameters this updates number k. Inputs: all p, all m, all v, then (lr sqrt(..) / (..), 1 - beta1, 1 - beta2,
// epsilon, shrink), then for each parameter whether it shrinks. gradient(i, p[i]) is g.
template <class Gradient>
void adamw(const Arguments &all, int n, int k, Gradient gradient) {
  float *parameter = all.at(k), *moment1 = all.at(n + k), *moment2 = all.at(2 * n + k);
  const float *rates = all.at(3 * n);
  const float rate = rates[0], new1 = rates[1], new2 = rates[2], epsilon = rates[3];
  const float shrink = rates[4] * all.at(3 * n + 1)[k];
  for_pieces(all.size(k), [=](int64_t begin, int64_t end) {
#pragma omp simd
    for (int64_t i = begin; i < end; ++i) {
      const float p = parameter[i], g = gradient(i, p);
      moment1[i] += new1 * (g - moment1[i]);
      moment2[i] += new2 * (g * g - moment2[i]);
      const float updated = p - rate * moment1[i] / (std::sqrt(moment2[i]) + epsilon);
      parameter[i] = updated - shrink * updated;
    }
  });
}

}  // namespace

extern "C" {

// ------------------------------------------------------------------------------------------------------------ gate

// masked = weight * clamp(WIDTH s + GAMMA, 0, 1), Eq. 1-3.
// weight, log_alpha, key, place -> masked
int masked_weight(int, void **data, int *ranks, int64_t **shapes, const char **, void *, void *) {
  const Arguments all{data, ranks, shapes};
  const float *weight = all.at(0), *log_alpha = all.at(1);
  const Noise noise(all.at<uint32_t>(2), all.at<uint32_t>(3));
  float *masked = all.at(4);
  for_pieces(all.size(0), [=](int64_t begin, int64_t end) {
#pragma omp simd
    for (int64_t i = begin; i < end; ++i)
      masked[i] = weight[i] * clamp(WIDTH * concrete(noise(i), log_alpha[i]) + GAMMA, 0.0f, 1.0f);
  });
  return 0;
}

// d log_alpha = d masked * weight * WIDTH s (1 - s) / beta inside of the clamp, 0 outside.
// d_masked, weight, log_alpha, key, place -> d_log_alpha
int masked_weight_backward(int, void **data, int *ranks, int64_t **shapes, const char **, void *, void *) {
  const Arguments all{data, ranks, shapes};
  const float *d_masked = all.at(0), *weight = all.at(1), *log_alpha = all.at(2);
  const Noise noise(all.at<uint32_t>(3), all.at<uint32_t>(4));
  float *d_log_alpha = all.at(5);
  for_pieces(all.size(1), [=](int64_t begin, int64_t end) {
#pragma omp simd
    for (int64_t i = begin; i < end; ++i) {
      const float s = concrete(noise(i), log_alpha[i]), mask = WIDTH * s + GAMMA;
      const float slope = mask < 0.0f || mask > 1.0f ? 0.0f : WIDTH * INVERSE_BETA * s * (1.0f - s);
      d_log_alpha[i] = d_masked[i] * weight[i] * slope;
    }
  });
  return 0;
}

// masked = weight * clamp(WIDTH sigmoid(log_alpha) + GAMMA, 0, 1), Eq. 5, without noise and beta.
// weight, log_alpha -> masked
int deterministic_masked_weight(int, void **data, int *ranks, int64_t **shapes, const char **, void *, void *) {
  const Arguments all{data, ranks, shapes};
  const float *weight = all.at(0), *log_alpha = all.at(1);
  float *masked = all.at(2);
  for_pieces(all.size(0), [=](int64_t begin, int64_t end) {
#pragma omp simd
    for (int64_t i = begin; i < end; ++i)
      masked[i] = weight[i] * clamp(WIDTH / (1.0f + exponential(-log_alpha[i])) + GAMMA, 0.0f, 1.0f);
  });
  return 0;
}

// d log_alpha = d masked * weight * WIDTH s (1 - s) inside of the clamp, 0 outside, s = sigmoid(log_alpha).
// d_masked, weight, log_alpha -> d_log_alpha
int deterministic_masked_weight_backward(int, void **data, int *ranks, int64_t **shapes, const char **, void *, void *) {
  const Arguments all{data, ranks, shapes};
  const float *d_masked = all.at(0), *weight = all.at(1), *log_alpha = all.at(2);
  float *d_log_alpha = all.at(3);
  for_pieces(all.size(1), [=](int64_t begin, int64_t end) {
#pragma omp simd
    for (int64_t i = begin; i < end; ++i) {
      const float s = 1.0f / (1.0f + exponential(-log_alpha[i])), mask = WIDTH * s + GAMMA;
      d_log_alpha[i] = d_masked[i] * weight[i] * (mask < 0.0f || mask > 1.0f ? 0.0f : WIDTH * s * (1.0f - s));
    }
  });
  return 0;
}

// The uniform numbers of a place, of the shape of `like`.
// like, key, place -> u
int uniform(int, void **data, int *ranks, int64_t **shapes, const char **, void *, void *) {
  const Arguments all{data, ranks, shapes};
  const Noise noise(all.at<uint32_t>(1), all.at<uint32_t>(2));
  float *u = all.at(3);
  for_pieces(all.size(0), [=](int64_t begin, int64_t end) {
#pragma omp simd
    for (int64_t i = begin; i < end; ++i) u[i] = noise(i);
  });
  return 0;
}

// ------------------------------------------------------------------------------------------------------------ bias

// y = x + bias by row.
// x (rows, columns), bias (columns) -> y
int add_bias(int, void **data, int *ranks, int64_t **shapes, const char **, void *, void *) {
  const Arguments all{data, ranks, shapes};
  const float *x = all.at(0), *bias = all.at(1);
  float *y = all.at(2);
  const int64_t columns = all.axis(0, 1);
  for_rows(all.size(0) / columns, [=](int64_t row) {
#pragma omp simd
    for (int64_t j = 0; j < columns; ++j) y[row * columns + j] = x[row * columns + j] + bias[j];
  });
  return 0;
}

// d_bias = sum over rows of dy.
// dy (rows, columns), bias (for its shape) -> d_bias
int add_bias_backward(int, void **data, int *ranks, int64_t **shapes, const char **, void *, void *) {
  const Arguments all{data, ranks, shapes};
  const float *dy = all.at(0);
  float *d_bias = all.at(2);
  const int64_t columns = all.axis(0, 1), rows = all.size(0) / columns;
  for_strips(columns, [=](int64_t first, int64_t width) {
    float sums[STRIP] = {0};
    for (int64_t row = 0; row < rows; ++row) {
#pragma omp simd
      for (int64_t j = 0; j < width; ++j) sums[j] += dy[row * columns + first + j];
    }
    std::copy(sums, sums + width, d_bias + first);
  });
  return 0;
}

// ------------------------------------------------------------------------------------------------------------ gelu

// y = x Phi(x), Phi the distribution function of the normal distribution.
// x -> y
int gelu(int, void **data, int *ranks, int64_t **shapes, const char **, void *, void *) {
  const Arguments all{data, ranks, shapes};
  const float *x = all.at(0);
  float *y = all.at(1);
  for_pieces(all.size(0), [=](int64_t begin, int64_t end) {
#pragma omp simd
    for (int64_t i = begin; i < end; ++i) y[i] = x[i] * normal_distribution(x[i], exponential(-0.5f * x[i] * x[i]));
  });
  return 0;
}

// dx = dy (Phi(x) + x phi(x)), phi(x) = e^(-x^2 / 2) / sqrt(2 pi).
// dy, x -> dx
int gelu_backward(int, void **data, int *ranks, int64_t **shapes, const char **, void *, void *) {
  const Arguments all{data, ranks, shapes};
  const float *dy = all.at(0), *x = all.at(1);
  float *dx = all.at(2);
  for_pieces(all.size(1), [=](int64_t begin, int64_t end) {
#pragma omp simd
    for (int64_t i = begin; i < end; ++i) {
      const float bell = exponential(-0.5f * x[i] * x[i]);
      dx[i] = dy[i] * (normal_distribution(x[i], bell) + x[i] * bell * 0.39894228f);
    }
  });
  return 0;
}

// --------------------------------------------------------------------------------------------------------- dropout

// y = x d, d = 0 with probability rate, else 1 / (1 - rate). Linear: the backward pass is the same kernel on dy.
// x, key, place, settings (rate) -> y
int dropout(int, void **data, int *ranks, int64_t **shapes, const char **, void *, void *) {
  const Arguments all{data, ranks, shapes};
  const float *x = all.at(0);
  const Dropout drop(all.at<uint32_t>(1), all.at<uint32_t>(2), all.at(3)[0]);
  float *y = all.at(4);
  for_pieces(all.size(0), [=](int64_t begin, int64_t end) {
#pragma omp simd
    for (int64_t i = begin; i < end; ++i) y[i] = x[i] * drop(i);
  });
  return 0;
}

// ------------------------------------------------------------------------------------------------------- LayerNorm

// z = x d + residual, with dropout d; normal = (z - mean z) scale, scale = 1 / sqrt(mean (z - mean z)^2 + epsilon), by
// row; y = normal * weight + bias.
// x (rows, hidden), residual, weight (hidden), bias, key, place, settings (rate, epsilon) -> y, normal, scale (rows)
int add_norm(int, void **data, int *ranks, int64_t **shapes, const char **, void *, void *) {
  const Arguments all{data, ranks, shapes};
  const float *x = all.at(0), *residual = all.at(1), *weight = all.at(2), *bias = all.at(3), *settings = all.at(6);
  const float rate = settings[0], epsilon = settings[1];
  const Dropout drop(all.at<uint32_t>(4), all.at<uint32_t>(5), rate);
  float *y = all.at(7), *normal = all.at(8), *scale = all.at(9);
  const int64_t hidden = all.axis(0, 1);
  for_rows(all.size(0) / hidden, [=](int64_t row) {
    const int64_t start = row * hidden;
    float *z = normal + start, sum = 0, squares = 0;
    if (rate > 0) {
#pragma omp simd reduction(+ : sum)
      for (int64_t j = 0; j < hidden; ++j) sum += z[j] = x[start + j] * drop(start + j) + residual[start + j];
    } else {
#pragma omp simd reduction(+ : sum)
      for (int64_t j = 0; j < hidden; ++j) sum += z[j] = x[start + j] + residual[start + j];
    }
    const float mean = sum / hidden;
#pragma omp simd reduction(+ : squares)
    for (int64_t j = 0; j < hidden; ++j) squares += (z[j] - mean) * (z[j] - mean);
    scale[row] = 1.0f / std::sqrt(squares / hidden + epsilon);
    const float factor = scale[row];
#pragma omp simd
    for (int64_t j = 0; j < hidden; ++j) {
      z[j] = (z[j] - mean) * factor;
      y[start + j] = z[j] * weight[j] + bias[j];
    }
  });
  return 0;
}

// With g = dy * weight: d_residual = dz = scale (g - mean g - normal mean(g * normal)), dx = dz d.
// dy, normal, scale, weight, key, place, settings (rate, epsilon) -> dx, d_residual
int add_norm_backward(int, void **data, int *ranks, int64_t **shapes, const char **, void *, void *) {
  const Arguments all{data, ranks, shapes};
  const float *dy = all.at(0), *normal = all.at(1), *scale = all.at(2), *weight = all.at(3), rate = all.at(6)[0];
  const Dropout drop(all.at<uint32_t>(4), all.at<uint32_t>(5), rate);
  float *dx = all.at(7), *d_residual = all.at(8);
  const int64_t hidden = all.axis(0, 1);
  for_rows(all.size(0) / hidden, [=](int64_t row) {
    const int64_t start = row * hidden;
    float sum = 0, projection = 0;
#pragma omp simd reduction(+ : sum, projection)
    for (int64_t j = 0; j < hidden; ++j) {
      const float g = dy[start + j] * weight[j];
      sum += g;
      projection += g * normal[start + j];
    }
    const float mean = sum / hidden, share = projection / hidden, factor = scale[row];
#pragma omp simd
    for (int64_t j = 0; j < hidden; ++j)
      d_residual[start + j] = (dy[start + j] * weight[j] - mean - normal[start + j] * share) * factor;
    if (rate > 0) {
#pragma omp simd
      for (int64_t j = 0; j < hidden; ++j) dx[start + j] = d_residual[start + j] * drop(start + j);
    } else {
      std::memcpy(dx + start, d_residual + start, hidden * sizeof(float));
    }
  });
  return 0;
}

// d_weight = sum over rows of dy * normal, d_bias = sum over rows of dy.
// dy (rows, hidden), normal, weight (for its shape) -> d_weight (hidden), d_bias
int add_norm_parameters_backward(int, void **data, int *ranks, int64_t **shapes, const char **, void *, void *) {
  const Arguments all{data, ranks, shapes};
  const float *dy = all.at(0), *normal = all.at(1);
  float *d_weight = all.at(3), *d_bias = all.at(4);
  const int64_t hidden = all.axis(0, 1), rows = all.size(0) / hidden;
  for_strips(hidden, [=](int64_t first, int64_t width) {
    float weights[STRIP] = {0}, biases[STRIP] = {0};
    for (int64_t row = 0; row < rows; ++row) {
      const int64_t start = row * hidden + first;
#pragma omp simd
      for (int64_t j = 0; j < width; ++j) {
        weights[j] += dy[start + j] * normal[start + j];
        biases[j] += dy[start + j];
      }
    }
    std::copy(weights, weights + width, d_weight + first);
    std::copy(biases, biases + width, d_bias + first);
  });
  return 0;
}

// ------------------------------------------------------------------------------------------------------- attention

// y[b, h, i, :] = x[b * length + i, h * width : (h + 1) * width].
// x (batch * length, heads * width), any -> y (batch, heads, length, width)
int split_heads(int, void **data, int *ranks, int64_t **shapes, const char **, void *, void *) {
  const Arguments all{data, ranks, shapes};
  swap_middle(all.at(0), all.at(2), all.size(2), all.axis(2, 2), all.axis(2, 3), all.axis(2, 1));
  return 0;
}

// The inverse of `split_heads`.
// x (batch, heads, length, width) -> y (batch * length, heads * width)
int join_heads(int, void **data, int *ranks, int64_t **shapes, const char **, void *, void *) {
  const Arguments all{data, ranks, shapes};
  swap_middle(all.at(0), all.at(1), all.size(0), all.axis(0, 3), all.axis(0, 2), all.axis(0, 1));
  return 0;
}

// probabilities = softmax(factor * scores + padding) over the last axis.
// scores (batch, heads, queries, length), padding (batch, length), settings (rate, factor) -> probabilities
int attention_probabilities(int, void **data, int *ranks, int64_t **shapes, const char **, void *, void *) {
  const Arguments all{data, ranks, shapes};
  const float *scores = all.at(0), *padding = all.at(1), factor = all.at(2)[1];
  float *probabilities = all.at(3);
  const int64_t length = all.axis(0, 1), rows_of_a_sentence = all.axis(0, 3) * all.axis(0, 2);
  for_rows(all.size(0) / length, [=](int64_t row) {
    const float *pad = padding + row / rows_of_a_sentence * length;
    softmax_row(scores + row * length, pad, factor, length, probabilities + row * length);
  });
  return 0;
}

// The same, and dropped = probabilities d, with dropout d.
// scores, padding, key, place, settings (rate, factor) -> probabilities, dropped
int dropped_attention_probabilities(int, void **data, int *ranks, int64_t **shapes, const char **, void *, void *) {
  const Arguments all{data, ranks, shapes};
  const float *scores = all.at(0), *padding = all.at(1), factor = all.at(4)[1];
  const Dropout drop(all.at<uint32_t>(2), all.at<uint32_t>(3), all.at(4)[0]);
  float *probabilities = all.at(5), *dropped = all.at(6);
  const int64_t length = all.axis(0, 1), rows_of_a_sentence = all.axis(0, 3) * all.axis(0, 2);
  for_rows(all.size(0) / length, [=](int64_t row) {
    const float *pad = padding + row / rows_of_a_sentence * length;
    const int64_t start = row * length;
    softmax_row(scores + start, pad, factor, length, probabilities + start);
#pragma omp simd
    for (int64_t j = 0; j < length; ++j) dropped[start + j] = probabilities[start + j] * drop(start + j);
  });
  return 0;
}

// d scores = p (g - sum(g * p)) factor by row, with the probabilities p and, under dropout d, g = d_dropped d; without
// dropout (rate 0) g is the gradient of p itself.
// d_dropped, probabilities, key, place, settings (rate, factor) -> d_scores
int attention_probabilities_backward(int, void **data, int *ranks, int64_t **shapes, const char **, void *, void *) {
  const Arguments all{data, ranks, shapes};
  const float *d_dropped = all.at(0), *probabilities = all.at(1), rate = all.at(4)[0], factor = all.at(4)[1];
  const Dropout drop(all.at<uint32_t>(2), all.at<uint32_t>(3), rate);
  float *d_scores = all.at(5);
  const int64_t length = all.axis(0, 1);
  for_rows(all.size(0) / length, [=](int64_t row) {
    const int64_t start = row * length;
    const float *p = probabilities + start;
    float *g = d_scores + start, sum = 0;
    if (rate > 0) {
#pragma omp simd
      for (int64_t j = 0; j < length; ++j) g[j] = d_dropped[start + j] * drop(start + j);
    } else {
      std::memcpy(g, d_dropped + start, length * sizeof(float));
    }
#pragma omp simd reduction(+ : sum)
    for (int64_t j = 0; j < length; ++j) sum += g[j] * p[j];
#pragma omp simd
    for (int64_t j = 0; j < length; ++j) g[j] = (g[j] - sum) * p[j] * factor;
  });
  return 0;
}

// ------------------------------------------------------------------------------------------------------- optimiser

// These take any number n of tensors: with a kernel for each tensor MindSpore would compile for seconds. A `keep` (bool)
// of one element stands for all elements of its tensor.

// Sum of squares over all tensors, where keep is not 0.
// x (n), keep (n) -> total (1)
int square_sum(int count, void **data, int *ranks, int64_t **shapes, const char **, void *, void *) {
  const Arguments all{data, ranks, shapes};
  const int n = (count - 1) / 2;
  double total = 0;
  for (int k = 0; k < n; ++k) {
    const float *x = all.at(k);
    const uint8_t *keep = all.at<uint8_t>(n + k);
    total += all.size(n + k) == 1 ? sum_up(all.size(k), [=](int64_t i) { return keep[0] ? x[i] * x[i] : 0.0f; })
                                  : sum_up(all.size(k), [=](int64_t i) { return keep[i] ? x[i] * x[i] : 0.0f; });
  }
  all.at(count - 1)[0] = static_cast<float>(total);
  return 0;
}

// AdamW with g = gradient * factor where keep is not 0, else 0; see `adamw` above.
// parameter (n), moment1 (n), moment2 (n) (all updated), rates, decays (n numbers), factor, gradient (n), keep (n)
// -> done (1)
int adamw(int count, void **data, int *ranks, int64_t **shapes, const char **, void *, void *) {
  const Arguments all{data, ranks, shapes};
  const int n = (count - 4) / 5;
  const float factor = all.at(3 * n + 2)[0];
  for (int k = 0; k < n; ++k) {
    const float *gradient = all.at(3 * n + 3 + k);
    const uint8_t *keep = all.at<uint8_t>(4 * n + 3 + k);
    if (all.size(4 * n + 3 + k) == 1)
      adamw(all, n, k, [=](int64_t i, float) { return keep[0] ? gradient[i] * factor : 0.0f; });
    else
      adamw(all, n, k, [=](int64_t i, float) { return keep[i] ? gradient[i] * factor : 0.0f; });
  }
  all.at(count - 1)[0] = 1.0f;
  return 0;
}

// AdamW of scores under the L0 penalty: g = gradient * factor + penalty * p (1 - p), the derivative of Eq. 4, with
// p = sigmoid(log_alpha - L0_SHIFT).
// log_alpha (n), moment1 (n), moment2 (n) (all updated), rates, decays (n numbers), factor, gradient (n),
// penalties (n numbers) -> done (1)
int adamw_scores(int count, void **data, int *ranks, int64_t **shapes, const char **, void *, void *) {
  const Arguments all{data, ranks, shapes};
  const int n = (count - 5) / 4;
  const float factor = all.at(3 * n + 2)[0], *penalties = all.at(4 * n + 3);
  for (int k = 0; k < n; ++k) {
    const float *gradient = all.at(3 * n + 3 + k), penalty = penalties[k];
    adamw(all, n, k, [=](int64_t i, float log_alpha) {
      const float p = 1.0f / (1.0f + exponential(L0_SHIFT - log_alpha));
      return gradient[i] * factor + penalty * p * (1.0f - p);
    });
  }
  all.at(count - 1)[0] = 1.0f;
  return 0;
}

// x = 0
// x (n, all updated) -> done (1)
int clear(int count, void **data, int *ranks, int64_t **shapes, const char **, void *, void *) {
  const Arguments all{data, ranks, shapes};
  for (int k = 0; k < count - 1; ++k) {
    float *x = all.at(k);
    for_pieces(all.size(k), [=](int64_t begin, int64_t end) { std::fill(x + begin, x + end, 0.0f); });
  }
  all.at(count - 1)[0] = 1.0f;
  return 0;
}

}  // extern "C"
