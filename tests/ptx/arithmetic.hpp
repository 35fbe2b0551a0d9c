// The arithmetic of PTX, on one thread's values. The expressions of table.py call these functions.
#pragma once
#include <cfenv>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <type_traits>
#include <algorithm>

using u8 = uint8_t;
using u16 = uint16_t;
using u32 = uint32_t;
using u64 = uint64_t;
using s8 = int8_t;
using s16 = int16_t;
using s32 = int32_t;
using s64 = int64_t;
using f32 = float;
using f64 = double;
using pred = bool;
struct f16;   // their values are kept as bits, in a u16
struct bf16;

template <class T> inline constexpr bool is_float = std::is_floating_point_v<T>;

template <size_t BYTES> struct UnsignedOf;
template <> struct UnsignedOf<1> { using type = u8; };
template <> struct UnsignedOf<2> { using type = u16; };
template <> struct UnsignedOf<4> { using type = u32; };
template <> struct UnsignedOf<8> { using type = u64; };

template <class T> struct StorageOf { using type = T; };
template <> struct StorageOf<f16> { using type = u16; };
template <> struct StorageOf<bf16> { using type = u16; };
template <class T> using storage = typename StorageOf<T>::type;

template <class T> using bits = typename UnsignedOf<sizeof(storage<T>)>::type;
template <class T> using half_of = typename UnsignedOf<sizeof(T) / 2>::type;
template <class T> using quarter_of = typename UnsignedOf<sizeof(T) / 4>::type;
// `twice<s16>` is s32: the type of a product that loses nothing.
template <class T>
using twice = std::conditional_t<std::is_signed_v<T>, std::make_signed_t<typename UnsignedOf<2 * sizeof(T)>::type>,
                                 typename UnsignedOf<2 * sizeof(T)>::type>;

// ---- integers ----

// The value as an unsigned number that may overflow; 16 bits as 32, because C++ would make them a signed int.
template <class T> inline auto wrap(T value) {
  if constexpr (sizeof(T) < 4) return u32(value);
  else return std::make_unsigned_t<T>(value);
}

template <class T> inline auto wide(T value) {
  if constexpr (std::is_signed_v<T>) return s64(value);
  else return u64(value);
}

template <class T> inline T multiply_high(T a, T b) {
  if constexpr (sizeof(T) < 8) return T((wide(a) * wide(b)) >> (8 * sizeof(T)));
  else if constexpr (std::is_signed_v<T>) return T(((__int128)a * b) >> 64);
  else return T(((unsigned __int128)a * b) >> 64);
}

template <class T> inline T low24(T a) { return std::is_signed_v<T> ? T(s32(u32(a) << 8) >> 8) : T(a & 0xffffff); }

template <class T, class Wide> inline T saturated(Wide value) {
  return T(std::min<Wide>(std::max<Wide>(value, std::numeric_limits<T>::min()), std::numeric_limits<T>::max()));
}

static bool divided_by_zero = false;  // the caller of a handler looks at it

template <class T> inline T quotient(T a, T b) {
  if (b == 0) {
    divided_by_zero = true;
    return T(-1);
  }
  if constexpr (std::is_signed_v<T>)
    if (b == -1) return T(-wrap(a));
  return T(a / b);
}

template <class T> inline T remainder(T a, T b) {
  if (b == 0) {
    divided_by_zero = true;
    return a;
  }
  if constexpr (std::is_signed_v<T>)
    if (b == -1) return 0;
  return T(a % b);
}

template <class T, class F> inline u32 halves(F f, u32 a, u32 b) {
  return u32(u16(f(T(a >> 16), T(b >> 16)))) << 16 | u16(f(T(a), T(b)));
}

template <class A, class B> inline u32 dot4(u32 a, u32 b, u32 c) {
  for (int i = 0; i < 4; i++) c += u32(s32(A(a >> (8 * i))) * s32(B(b >> (8 * i))));
  return c;
}

template <class A, class B> inline u32 dot2(u32 a, u32 b, u32 c) {
  for (int i = 0; i < 2; i++) c += u32(s32(A(a >> (16 * i))) * s32(B(b >> (8 * i))));
  return c;
}

// ---- bits ----

template <class T> inline T shift_left(T a, u32 count) { return count >= 8 * sizeof(T) ? T(0) : T(wrap(a) << count); }

template <class T> inline T shift_right(T a, u32 count) {
  return T(a >> std::min<u32>(count, 8 * sizeof(T) - 1)) & (count >= 8 * sizeof(T) && std::is_unsigned_v<T> ? 0 : T(-1));
}

inline u32 any_logic(u32 a, u32 b, u32 c, u32 table) {
  u32 result = 0;
  for (u32 row = 0; row < 8; row++)
    if (table >> row & 1) result |= (row & 4 ? a : ~a) & (row & 2 ? b : ~b) & (row & 1 ? c : ~c);
  return result;
}

enum class Permute { bytes, f4e, b4e, rc8, ecl, ecr, rc16 };

inline u32 permuted(u32 a, u32 b, u32 selectors, Permute mode) {
  const u64 source = u64(b) << 32 | a;
  const int i = selectors & 3;
  u32 result = 0;
  for (int j = 0; j < 4; j++) {
    const u32 selector = selectors >> (4 * j) & 15;
    int from = selector & 7;
    if (mode == Permute::f4e) from = i + j;
    if (mode == Permute::b4e) from = (i - j) & 7;
    if (mode == Permute::rc8) from = i;
    if (mode == Permute::ecl) from = std::max(i, j);
    if (mode == Permute::ecr) from = std::min(i, j);
    if (mode == Permute::rc16) from = 2 * (i & 1) + (j & 1);
    u8 byte = u8(source >> (8 * from));
    if (mode == Permute::bytes && selector & 8) byte = byte & 0x80 ? 0xff : 0;  // the sign, eight times
    result |= u32(byte) << (8 * j);
  }
  return result;
}

inline u32 leading_zeros(u32 a) { return a ? __builtin_clz(a) : 32; }
inline u32 leading_zeros(u64 a) { return a ? __builtin_clzll(a) : 64; }

template <class T> inline u32 highest_bit(T a) {
  const std::make_unsigned_t<T> value = std::is_signed_v<T> && a < 0 ? ~a : a;
  return 8 * sizeof(T) - 1 - leading_zeros(value);
}

template <class T> inline T reversed(T a) {
  T result = 0;
  for (size_t i = 0; i < 8 * sizeof(T); i++) result |= (a >> i & 1) << (8 * sizeof(T) - 1 - i);
  return result;
}

template <class T> inline T extracted(T a, u32 position, u32 length) {
  const u32 first = position & 255, count = length & 255, last = 8 * sizeof(T) - 1;
  const T sign = std::is_signed_v<T> && count ? T(a >> std::min(first + count - 1, last)) & 1 : 0;
  T result = sign ? T(-1) : T(0);
  for (u32 i = 0; i < count && first + i <= last; i++) {
    const T bit = T(1) << i;
    result = a >> (first + i) & 1 ? result | bit : result & ~bit;
  }
  return result;
}

template <class T> inline T inserted(T a, T b, u32 position, u32 length) {
  const u32 first = position & 255, count = length & 255;
  for (u32 i = 0; i < count && first + i < 8 * sizeof(T); i++) {
    const T bit = T(1) << (first + i);
    b = a >> i & 1 ? b | bit : b & ~bit;
  }
  return b;
}

// ---- floats ----

enum class Round { rn, rz, rm, rp, rni, rzi, rmi, rpi };

template <class T> inline T from_bits(bits<T> value) {
  T result;
  std::memcpy(&result, &value, sizeof result);
  return result;
}

template <class T> inline bool is_nan(T a) { return a != a; }

template <class T> inline T canonical(T a) {  // the hardware's NaN of float32; float64 keeps a NaN's bits
  if constexpr (sizeof(T) == 4) return is_nan(a) ? from_bits<f32>(0x7fffffff) : a;
  else return a;
}

template <class T> inline T flushed(bool ftz, T a) {
  return ftz && std::fabs(a) < std::numeric_limits<T>::min() ? std::copysign(T(0), a) : a;
}

template <class T> inline T clamped(bool sat, T a) { return !sat ? a : a > 0 ? std::min(a, T(1)) : T(0); }

inline int host_rounding(Round round) {
  return round == Round::rz ? FE_TOWARDZERO : round == Round::rm ? FE_DOWNWARD : FE_UPWARD;
}

// The compiler must neither compute what depends on `value` earlier nor move it.
template <class T> inline void pinned(T& value) { asm volatile("" : "+m"(value) : : "memory"); }

// What `f` gives in a rounding mode.
template <class F, class... V> __attribute__((noinline)) auto in_rounding(Round round, F f, V... values) {
  std::fesetround(host_rounding(round));
  (pinned(values), ...);
  auto result = f(values...);
  pinned(result);
  std::fesetround(FE_TONEAREST);
  return result;
}

template <class T, class F, class... V> inline T rounded(Round round, bool ftz, bool sat, F f, V... values) {
  const T result = round == Round::rn ? T(f(flushed(ftz, values)...)) : T(in_rounding(round, f, flushed(ftz, values)...));
  return clamped(sat, flushed(ftz, canonical(result)));
}

inline f32 fused(f32 a, f32 b, f32 c) { return std::fma(a, b, c); }
inline f64 fused(f64 a, f64 b, f64 c) { return std::fma(a, b, c); }
template <class T> inline T reciprocal(T a) { return 1 / a; }
template <class T> inline T root(T a) { return std::sqrt(a); }

template <class T> inline T lesser(bool ftz, bool keep_nan, T x, T y) {
  const T a = flushed(ftz, x), b = flushed(ftz, y);
  if ((is_nan(a) && is_nan(b)) || (keep_nan && (is_nan(a) || is_nan(b)))) return canonical(a + b);
  if (is_nan(a) || is_nan(b)) return is_nan(a) ? b : a;
  return a < b || (a == b && std::signbit(a)) ? a : b;
}

template <class T> inline T greater(bool ftz, bool keep_nan, T a, T b) {
  const T result = lesser(ftz, keep_nan, -a, -b);
  return is_nan(result) ? canonical(result) : -result;
}

template <class T> inline bool is_finite(T a) { return std::isfinite(a); }
template <class T> inline bool is_infinite(T a) { return std::isinf(a); }
template <class T> inline bool is_number(T a) { return !is_nan(a); }
template <class T> inline bool is_notanumber(T a) { return is_nan(a); }
template <class T> inline bool is_normal(T a) { return std::isnormal(a); }
template <class T> inline bool is_subnormal(T a) { return std::fpclassify(a) == FP_SUBNORMAL; }

template <class F> inline f32 approximate(bool ftz, F f, f32 a) { return canonical(flushed(ftz, f32(f(flushed(ftz, a))))); }
inline f64 unknown_bits() { return std::numeric_limits<f64>::quiet_NaN(); }

#define COMPARE(name, ordered, relation)                                       \
  template <class T> inline bool compare_##name(bool ftz, T x, T y) {          \
    if constexpr (is_float<T>) {                                               \
      const T a = flushed(ftz, x), b = flushed(ftz, y);                        \
      return (is_nan(a) || is_nan(b)) ? !ordered : relation;                   \
    } else {                                                                   \
      const T a = x, b = y;                                                    \
      return relation;                                                         \
    }                                                                          \
  }
COMPARE(eq, true, a == b)
COMPARE(ne, true, a != b)
COMPARE(lt, true, a < b)
COMPARE(le, true, a <= b)
COMPARE(gt, true, a > b)
COMPARE(ge, true, a >= b)
COMPARE(lo, true, a < b)
COMPARE(ls, true, a <= b)
COMPARE(hi, true, a > b)
COMPARE(hs, true, a >= b)
COMPARE(equ, false, a == b)
COMPARE(neu, false, a != b)
COMPARE(ltu, false, a < b)
COMPARE(leu, false, a <= b)
COMPARE(gtu, false, a > b)
COMPARE(geu, false, a >= b)
COMPARE(num, true, true)
COMPARE(nan, false, false)

// ---- conversions ----

template <class D, class S> inline D resized(bool sat, S a) {
  return sat ? saturated<D, __int128>(a) : D(a);
}

// A half-precision format: bits of the mantissa and the smallest exponent of a normal number.
template <class D> struct Half;
template <> struct Half<f16> { static constexpr int mantissa = 10, lowest = -14; };
template <> struct Half<bf16> { static constexpr int mantissa = 7, lowest = -126; };

template <class S> inline auto as_float(storage<S> a) {
  if constexpr (is_float<S>) {
    return a;
  } else {
    constexpr int mantissa = Half<S>::mantissa, top = (1 << (15 - mantissa)) - 1;
    const int exponent = a >> mantissa & top, rest = a & ((1 << mantissa) - 1);
    const f32 scale = std::ldexp(1.0f, Half<S>::lowest - mantissa + std::max(exponent - 1, 0));
    f32 size = scale * f32(exponent ? rest + (1 << mantissa) : rest);
    if (exponent == top) size = rest ? std::numeric_limits<f32>::quiet_NaN() : std::numeric_limits<f32>::infinity();
    return a & 0x8000 ? -size : size;
  }
}

template <class D> inline u16 to_half(Round round, bool relu, f64 value) {
  constexpr int mantissa = Half<D>::mantissa, lowest = Half<D>::lowest;
  constexpr u16 infinity = ((1 << (15 - mantissa)) - 1) << mantissa;
  if (is_nan(value)) return 0x7fff;
  if (relu && value < 0) return 0;
  const u16 sign = std::signbit(value) ? 0x8000 : 0;
  const f64 size = std::fabs(value);
  if (std::isinf(size)) return sign | infinity;
  const int exponent = size == 0 ? lowest : std::max(std::ilogb(size), lowest);
  const f64 units = std::ldexp(size, mantissa - exponent);  // exact
  const u64 whole_units = u64(round == Round::rn ? std::nearbyint(units) : std::trunc(units));
  // A carry into the next exponent adds up by itself.
  const u64 made = (u64(exponent - lowest) << mantissa) + whole_units;
  if (made >= infinity) return sign | (round == Round::rn ? infinity : infinity - 1);
  return sign | u16(made);
}

template <class T> inline T whole(Round round, T a) {
  if (round == Round::rni) return std::nearbyint(a);
  return round == Round::rzi ? std::trunc(a) : round == Round::rmi ? std::floor(a) : std::ceil(a);
}

template <class D, class S> inline D to_integer(Round round, S a) {
  constexpr D low = std::numeric_limits<D>::min(), high = std::numeric_limits<D>::max();
  if (is_nan(a)) {
    if (sizeof(S) < 8 && sizeof(D) < 8) return 0;
    return D(bits<D>(1) << (8 * sizeof(D) - 1));
  }
  const S value = whole(round, a);
  if (value <= S(low)) return low;
  return value >= S(high) ? high : D(value);  // S(high) may be one more than `high`
}

template <class D, class S> inline D from_integer(Round round, bool sat, S a) {
  return clamped(sat, round == Round::rn ? D(a) : in_rounding(round, [](S v) { return D(v); }, a));
}

inline f32 to_float32(Round round, f64 a) {
  return canonical(round == Round::rn ? f32(a) : in_rounding(round, [](f64 v) { return f32(v); }, a));
}
