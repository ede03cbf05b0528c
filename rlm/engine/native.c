/* What training does between matrix products, in one pass over memory where PyTorch's operations take ten.

   Phrases are packed as Recurrence and States in lstm.py describe. A position has `rows` rows from `start` on, of
   `packed` in all; `before` of them have begun already. The first position has `first` rows. `states` and `hiddens` are
   what these end with, and then what each row has before its word; those after it go to the place `after`. Gates, hidden
   states and their gradients are float, or bfloat16 in `narrow`; all else is float. */
#include <math.h>
#include <stdint.h>
#include <string.h>

#if defined(__clang__)
#define VECTORISE _Pragma("clang loop vectorize(assume_safety)")
#else
#define VECTORISE _Pragma("GCC ivdep")
#endif

typedef uint16_t narrow;

static inline float wide_of_narrow(narrow x) {
    union { uint32_t bits; float value; } u = {(uint32_t)x << 16};
    return u.value;
}

static inline narrow narrow_of_wide(float x) { /* to the nearest, ties to even; NaN stays NaN */
    union { float value; uint32_t bits; } u = {x};
    uint32_t rounded = (u.bits + 0x7fff + ((u.bits >> 16) & 1)) >> 16;
    return x == x ? rounded : 0x7fc0;
}

static inline float same(float x) { return x; }

/* exp(-x) = 2^n exp(r) with |r| <= log(2) / 2, where the series is exact to 2e-7 */
static inline float sigmoid(float x) {
    x = x < -87.0f ? -87.0f : x > 87.0f ? 87.0f : x;
    float n = rintf(x * -1.44269504f), r = -x - n * 0.693145752f - n * 1.42860677e-6f;
    float high = 0.166666667f + r * (0.0416666667f + r * (0.00833333333f + r * 0.00138888889f));
    float series = 1 + r * (1 + r * (0.5f + r * high));
    union { int32_t bits; float value; } power = {((int32_t)(n == n ? n : 0) + 127) << 23};
    return 1 / (1 + series * power.value);
}

/* tanh: near 0 by its series, since a difference of numbers near 1 has few digits */
static inline float squash(float x) {
    float y = x * x, series = x * (1 + y * (-0.333333333f + y * (0.133333333f + y * -0.0539682540f)));
    return y < 0.01f ? series : 2 * sigmoid(2 * x) - 1;
}

#define PASSES(T, LOAD, STORE, FORWARD, BACKWARD)                                                                      \
    void FORWARD(T *gates, const T *products, const float *bias, const uint8_t *is_word, float *states, T *hiddens,    \
                 long seeds, long packed, long first, long start, long rows, long before, long after, long dim) {      \
        for (long seed = 0; seed < seeds; seed++)                                                                      \
            for (long row = 0; row < rows; row++) {                                                                    \
                long place = seed * packed + start + row, slots = seed * (first + packed);                             \
                T *i = gates + place * 4 * dim, *f = i + dim, *g = f + dim, *o = g + dim;                              \
                const float *b = bias + seed * 4 * dim, *state = states + (slots + first + start + row) * dim;         \
                float *next = states + (slots + after + row) * dim, open = is_word[place], begun = row < before;       \
                T *hidden = hiddens + (slots + after + row) * dim;                                                     \
                if (!begun) {                                                                                          \
                    memset(states + (slots + first + start + row) * dim, 0, dim * sizeof(float));                      \
                    memset(hiddens + (slots + first + start + row) * dim, 0, dim * sizeof(T));                         \
                }                                                                                                      \
                const T *more = products + (begun ? (seed * before + row) * 4 * dim : 0);                              \
                VECTORISE for (long k = 0; begun && k < 4 * dim; k++) i[k] = STORE(LOAD(i[k]) + LOAD(more[k]));        \
                VECTORISE for (long k = 0; k < dim; k++) {                                                             \
                    float in = open * sigmoid(LOAD(i[k]) + b[k]), keep = sigmoid(LOAD(f[k]) + b[dim + k]);             \
                    float new = squash(LOAD(g[k]) + b[2 * dim + k]), out = sigmoid(LOAD(o[k]) + b[3 * dim + k]);       \
                    float value = keep * state[k] + in * new;                                                          \
                    i[k] = STORE(in), f[k] = STORE(keep), g[k] = STORE(new), o[k] = STORE(out);                        \
                    next[k] = value, hidden[k] = STORE(out * squash(value));                                           \
                }                                                                                                      \
            }                                                                                                          \
    }                                                                                                                  \
    void BACKWARD(const T *gates, const float *states, const T *of_hiddens, float *of_states, T *of_gates,             \
                  float *of_bias, long seeds, long packed, long first, long start, long rows, long dim) {              \
        for (long seed = 0; seed < seeds; seed++)                                                                      \
            for (long row = 0; row < rows; row++) {                                                                    \
                long place = (seed * packed + start + row) * 4 * dim;                                                  \
                const T *i = gates + place, *f = i + dim, *g = f + dim, *o = g + dim;                                  \
                T *to_i = of_gates + place, *to_f = to_i + dim, *to_g = to_f + dim, *to_o = to_g + dim;                \
                const float *state = states + (seed * (first + packed) + first + start + row) * dim;                   \
                const T *of_hidden = of_hiddens + (seed * rows + row) * dim;                                           \
                float *of_state = of_states + (seed * first + row) * dim, *of_b = of_bias + seed * 4 * dim;            \
                VECTORISE for (long k = 0; k < dim; k++) {                                                             \
                    float in = LOAD(i[k]), keep = LOAD(f[k]), new = LOAD(g[k]), out = LOAD(o[k]);                      \
                    float squashed = squash(keep * state[k] + in * new), of_h = LOAD(of_hidden[k]);                    \
                    float of_c = of_h * out * (1 - squashed * squashed) + of_state[k];                                 \
                    float of_i = of_c * new * in * (1 - in), of_f = of_c * state[k] * keep * (1 - keep);               \
                    float of_g = of_c * in * (1 - new * new), of_o = of_h * squashed * out * (1 - out);                \
                    to_i[k] = STORE(of_i), to_f[k] = STORE(of_f), to_g[k] = STORE(of_g), to_o[k] = STORE(of_o);        \
                    of_b[k] += of_i, of_b[dim + k] += of_f, of_b[2 * dim + k] += of_g, of_b[3 * dim + k] += of_o;      \
                    of_state[k] = of_c * keep;                                                                         \
                }                                                                                                      \
            }                                                                                                          \
    }

PASSES(float, same, same, forward_float32, backward_float32)
PASSES(narrow, wide_of_narrow, narrow_of_wide, forward_bfloat16, backward_bfloat16)

/* One step of Adam for the used rows of a table, see BlockAdam.step_rows. */
void step_rows(float *table, float *means, float *squares, const int64_t *rows, const float *gradients,
               const float *steps, const float *decays, long seeds, long words, long dim, float share,
               float share_of_square, float eps) {
    for (long word = 0; word < seeds * words; word++) {
        int64_t start = rows[word] * dim;
        float *weight = table + start, *mean = means + start, *square = squares + start;
        const float *gradient = gradients + word * dim, step = steps[word / words], decay = decays[word / words];
        VECTORISE for (long k = 0; k < dim; k++) {
            float slope = gradient[k], first = mean[k] + share * (slope - mean[k]);
            float second = square[k] + share_of_square * (slope * slope - square[k]);
            mean[k] = first, square[k] = second;
            weight[k] -= decay * weight[k];
            weight[k] -= step * first / (sqrtf(second) + eps);
        }
    }
}

/* Add rows of a table, which count from 1 (0 adds nothing), to the sums of phrases, or `back`, see SumOfRows. The order
   is that in which compiled steps of MeanEncoder add, so that both round alike. */
void add_rows(float *table, const int64_t *rows, float *sums, long seeds, long size, long phrases, long places,
              long dim, long back) {
    for (long seed = 0; seed < seeds; seed++)
        for (long i = 0; i < (back ? places : phrases); i++)
            for (long j = 0; j < (back ? phrases : places); j++) {
                long phrase = seed * phrases + (back ? j : i), place = back ? i : places - 1 - j;
                int64_t row = rows[phrase * places + place];
                if (row == 0) continue;
                float *sum = sums + phrase * dim, *vector = table + (seed * size + row - 1) * dim;
                float *to = back ? vector : sum, *from = back ? sum : vector;
                VECTORISE for (long k = 0; k < dim; k++) to[k] += from[k];
            }
}
