//! Floating-point numbers with a mantissa of 64 bits and an exponent of 15: the `long double` of x86.
//!
//! Redis adds in this format, and what it prints shows it: 3 + 1.1 is `4.1`, with no trace of binary fractions
//! in the 17 decimals printed, where doubles would give `4.0999999999999996`. Rust has no such type, so
//! reading, adding and printing are done here on integers, each rounded once, to nearest, ties to even.

/// Longest text that is read, in bytes.
pub(super) const TEXT_MAX_BYTES: usize = 5119;
/// Digits printed after the decimal point (trailing zeros are then dropped).
const DECIMALS: usize = 17;
/// Exponent of the largest finite numbers: below 2^16384, with 64 bits of mantissa.
const EXPONENT_MAX: i32 = 16384 - 64;
/// Exponent of the smallest number, 2^-16445, of which all others are multiples.
const EXPONENT_MIN: i32 = -16445;
/// A number whose first digit stands for a power of ten further from 1 than this is infinite, or zero.
const POWER_OF_TEN_MAX: i64 = 4970;

/// `mantissa * 2^exponent`, negated if `negative`. The mantissa has its top bit set, or is zero. An exponent over
/// [`EXPONENT_MAX`] stands for infinity.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct ExtendedFloat {
    negative: bool,
    mantissa: u64,
    exponent: i32,
}

impl ExtendedFloat {
    pub(crate) const ZERO: ExtendedFloat = ExtendedFloat::new(0, 0);
    const INFINITY: ExtendedFloat = ExtendedFloat::new(1 << 63, EXPONENT_MAX + 1);

    const fn new(mantissa: u64, exponent: i32) -> ExtendedFloat {
        ExtendedFloat {
            negative: false,
            mantissa,
            exponent,
        }
    }

    /// Reads a number as C's `strtold` does: decimal or (after `0x`) hexadecimal digits with an optional point and
    /// exponent, or `inf`. `None` for anything else, for NaN, and for what overflows or is too small not to be zero.
    pub(crate) fn parse(text: &[u8]) -> Option<ExtendedFloat> {
        if text.len() > TEXT_MAX_BYTES {
            return None;
        }
        let (negative, text) = match text {
            [b'-', rest @ ..] => (true, rest),
            [b'+', rest @ ..] => (false, rest),
            _ => (false, text),
        };
        let magnitude = match text {
            [b'0', b'x' | b'X', digits @ ..] => parse_hexadecimal(digits)?,
            _ if is_any_of(text, &["inf", "infinity"]) => ExtendedFloat::INFINITY,
            _ => parse_decimal(text)?,
        };
        Some(ExtendedFloat {
            negative,
            ..magnitude
        })
    }

    /// The sum; `None` if it is not finite.
    pub(crate) fn checked_add(self, other: ExtendedFloat) -> Option<ExtendedFloat> {
        if !self.is_finite() || !other.is_finite() {
            return None;
        }
        let (larger, smaller) = if self.magnitude_key() >= other.magnitude_key() {
            (self, other)
        } else {
            (other, self)
        };
        if smaller.mantissa == 0 {
            return Some(larger);
        }
        // 63 bits below the larger mantissa are kept exactly; what lies below them is one sticky bit, enough to
        // tell a tie from its neighbours.
        let wide = u128::from(larger.mantissa) << 63;
        let distance = (larger.exponent - smaller.exponent) as u32;
        let addend = match distance {
            0..=63 => u128::from(smaller.mantissa) << (63 - distance),
            64..=126 => {
                let shift = distance - 63;
                let kept = smaller.mantissa >> shift;
                u128::from(kept | u64::from(kept << shift != smaller.mantissa))
            }
            _ => 1,
        };
        let wide = if larger.negative == smaller.negative {
            wide + addend
        } else {
            wide - addend
        };
        let sum = round(wide, larger.exponent - 63);
        sum.is_finite().then_some(ExtendedFloat {
            negative: larger.negative && wide != 0,
            ..sum
        })
    }

    /// The number in plain decimal notation with at most 17 digits after the point.
    pub(crate) fn to_decimal(self) -> Vec<u8> {
        let mut text = Vec::new();
        if self.exponent > 0 {
            text = Big::from(u128::from(self.mantissa))
                .shifted(self.exponent as u32)
                .into_decimal();
        } else {
            let scaled = self.times_power_of_ten(DECIMALS as u32);
            text.extend_from_slice(format!("{scaled:0width$}", width = DECIMALS + 1).as_bytes());
            text.insert(text.len() - DECIMALS, b'.');
            let zeros = text
                .iter()
                .rev()
                .take_while(|&&digit| digit == b'0')
                .count();
            text.truncate(text.len() - zeros);
            if text.ends_with(b".") {
                text.pop();
            }
        }
        if self.negative && text != b"0" {
            text.insert(0, b'-');
        }
        text
    }

    /// The magnitude of a number whose exponent is not positive, times 10^`power` (17 at most), rounded.
    fn times_power_of_ten(self, power: u32) -> u128 {
        // Below 2^64 * 2^57.
        let scaled = u128::from(self.mantissa) * 10u128.pow(power);
        match self.exponent.unsigned_abs() {
            0 => scaled,
            shift @ 1..=127 => {
                let kept = scaled >> shift;
                let rest = scaled & ((1 << shift) - 1);
                let half = 1 << (shift - 1);
                kept + u128::from(rest > half || (rest == half && kept & 1 == 1))
            }
            _ => 0,
        }
    }

    /// The nearest double; the nearest to it that there is below the normal ones.
    pub(crate) fn to_double(self) -> f64 {
        // In two steps, neither of which leaves what a double can be before the number does.
        let exponent = self.exponent.clamp(-1300, 1100);
        let half = exponent / 2;
        let magnitude = self.mantissa as f64 * 2f64.powi(half) * 2f64.powi(exponent - half);
        if self.negative { -magnitude } else { magnitude }
    }

    /// The nearest `f64`, or one close to it.
    pub(crate) fn to_f64(self) -> f64 {
        // In two steps, neither of which leaves the range of exponents if the result does not.
        let half = self.exponent / 2;
        let magnitude = if self.is_finite() {
            self.mantissa as f64 * 2f64.powi(half) * 2f64.powi(self.exponent - half)
        } else {
            f64::INFINITY
        };
        if self.negative { -magnitude } else { magnitude }
    }

    pub(crate) fn is_finite(self) -> bool {
        self.exponent <= EXPONENT_MAX
    }

    /// Orders magnitudes of finite numbers; zero comes first.
    fn magnitude_key(self) -> (i32, u64) {
        if self.mantissa == 0 {
            (i32::MIN, 0)
        } else {
            (self.exponent, self.mantissa)
        }
    }
}

/// `wide * 2^exponent`, rounded to 64 bits.
fn round(wide: u128, exponent: i32) -> ExtendedFloat {
    if wide == 0 {
        return ExtendedFloat::ZERO;
    }
    let zeros = wide.leading_zeros();
    let top = wide << zeros;
    let exponent = exponent + 64 - zeros as i32;
    let (mantissa, rest) = ((top >> 64) as u64, top as u64);
    let half = 1 << 63;
    if rest < half || (rest == half && mantissa & 1 == 0) {
        return ExtendedFloat::new(mantissa, exponent);
    }
    match mantissa.checked_add(1) {
        Some(mantissa) => ExtendedFloat::new(mantissa, exponent),
        None => ExtendedFloat::new(1 << 63, exponent + 1),
    }
}

fn is_any_of(text: &[u8], words: &[&str]) -> bool {
    words
        .iter()
        .any(|word| text.eq_ignore_ascii_case(word.as_bytes()))
}

/// Digits with the point taken out, and the exponent that follows them.
struct Digits {
    /// Values, not characters; without leading zeros.
    values: Vec<u8>,
    /// How many of the digits as written stand behind the point.
    decimals: i64,
    /// The written exponent; 0 if there is none. Saturates far beyond any that matters.
    exponent: i64,
}

impl Digits {
    /// Splits `text`: digits of base `radix` with at most one point among them, then, after `mark` or its upper case,
    /// a decimal exponent. `None` unless there is a digit and nothing is left over.
    fn split(text: &[u8], radix: u32, mark: u8) -> Option<Digits> {
        let mut digits = Digits {
            values: Vec::new(),
            decimals: 0,
            exponent: 0,
        };
        let (mut seen_digit, mut seen_point) = (false, false);
        for (i, &byte) in text.iter().enumerate() {
            if let Some(value) = char::from(byte).to_digit(radix) {
                seen_digit = true;
                digits.decimals += i64::from(seen_point);
                if value > 0 || !digits.values.is_empty() {
                    digits.values.push(value as u8);
                }
            } else if byte == b'.' && !seen_point {
                seen_point = true;
            } else if byte.eq_ignore_ascii_case(&mark) && seen_digit {
                digits.exponent = parse_exponent(&text[i + 1..])?;
                return Some(digits);
            } else {
                return None;
            }
        }
        seen_digit.then_some(digits)
    }

    fn to_big(&self, radix: u32) -> Big {
        let mut number = Big::from(0);
        for &value in &self.values {
            number.multiply_add(radix, u32::from(value));
        }
        number
    }
}

fn parse_exponent(text: &[u8]) -> Option<i64> {
    let (negative, digits) = match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        _ => (false, text),
    };
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let limit = 1_000_000_000;
    let magnitude = digits.iter().fold(0i64, |sum, digit| {
        (sum * 10 + i64::from(digit - b'0')).min(limit)
    });
    Some(if negative { -magnitude } else { magnitude })
}

fn parse_decimal(text: &[u8]) -> Option<ExtendedFloat> {
    let digits = Digits::split(text, 10, b'e')?;
    let power = digits.exponent - digits.decimals;
    if digits.values.is_empty() {
        return Some(ExtendedFloat::ZERO);
    }
    if (power + digits.values.len() as i64).abs() > POWER_OF_TEN_MAX {
        return None;
    }
    let mut numerator = digits.to_big(10);
    let mut denominator = Big::from(1);
    let scaled = if power >= 0 {
        &mut numerator
    } else {
        &mut denominator
    };
    scaled.multiply_by_power_of_ten(power.unsigned_abs() as u32);
    quotient(numerator, denominator, 0)
}

fn parse_hexadecimal(text: &[u8]) -> Option<ExtendedFloat> {
    let digits = Digits::split(text, 16, b'p')?;
    if digits.values.is_empty() {
        return Some(ExtendedFloat::ZERO);
    }
    quotient(
        digits.to_big(16),
        Big::from(1),
        digits.exponent - 4 * digits.decimals,
    )
}

/// `numerator / denominator * 2^scale`, rounded; neither is zero. `None` if that is too large to be finite or too
/// small not to be zero.
fn quotient(mut numerator: Big, mut denominator: Big, scale: i64) -> Option<ExtendedFloat> {
    // Make the quotient at least 1 and below 2.
    let mut exponent = numerator.bits() as i64 - denominator.bits() as i64;
    denominator = denominator.shifted(exponent.max(0) as u32);
    numerator = numerator.shifted((-exponent).max(0) as u32);
    if numerator < denominator {
        numerator = numerator.shifted(1);
        exponent -= 1;
    }
    exponent += scale;
    // Near zero there is room for fewer bits.
    let bits = (exponent - i64::from(EXPONENT_MIN) + 1).min(64);
    if bits < 0 || exponent > i64::from(EXPONENT_MAX) + 64 {
        return None;
    }
    let mut wide = 0u128;
    for _ in 0..bits {
        wide <<= 1;
        if numerator >= denominator {
            numerator.subtract(&denominator);
            wide |= 1;
        }
        numerator = numerator.shifted(1);
    }
    // What is left, in units of half the last bit: its comparison with 1 decides the rounding.
    let up = numerator > denominator || (numerator == denominator && wide & 1 == 1);
    let rounded = round(wide + u128::from(up), exponent as i32 - bits as i32 + 1);
    (rounded.mantissa != 0 && rounded.is_finite()).then_some(rounded)
}

/// An unsigned integer of any size: 32 bits a limb, the lowest first, no zero limbs on top.
#[derive(Clone, PartialEq, Eq)]
struct Big(Vec<u32>);

impl From<u128> for Big {
    fn from(mut value: u128) -> Big {
        let mut limbs = Vec::new();
        while value > 0 {
            limbs.push(value as u32);
            value >>= 32;
        }
        Big(limbs)
    }
}

impl PartialOrd for Big {
    fn partial_cmp(&self, other: &Big) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Big {
    fn cmp(&self, other: &Big) -> std::cmp::Ordering {
        let by_length = self.0.len().cmp(&other.0.len());
        by_length.then_with(|| self.0.iter().rev().cmp(other.0.iter().rev()))
    }
}

impl Big {
    fn bits(&self) -> u32 {
        self.0
            .last()
            .map_or(0, |top| self.0.len() as u32 * 32 - top.leading_zeros())
    }

    fn multiply_add(&mut self, factor: u32, addend: u32) {
        let mut carry = u64::from(addend);
        for limb in &mut self.0 {
            let product = u64::from(*limb) * u64::from(factor) + carry;
            *limb = product as u32;
            carry = product >> 32;
        }
        if carry > 0 {
            self.0.push(carry as u32);
        }
    }

    fn multiply_by_power_of_ten(&mut self, power: u32) {
        for _ in 0..power / 9 {
            self.multiply_add(1_000_000_000, 0);
        }
        self.multiply_add(10u32.pow(power % 9), 0);
    }

    /// `self * 2^count`.
    fn shifted(mut self, count: u32) -> Big {
        if !count.is_multiple_of(32) {
            self.multiply_add(1 << (count % 32), 0);
        }
        if count >= 32 && !self.0.is_empty() {
            self.0
                .splice(0..0, std::iter::repeat_n(0, count as usize / 32));
        }
        self
    }

    /// `self -= other`, which must not be larger.
    fn subtract(&mut self, other: &Big) {
        let mut borrow = false;
        for (i, limb) in self.0.iter_mut().enumerate() {
            let other = other.0.get(i).copied().unwrap_or(0);
            let (difference, first) = limb.overflowing_sub(other);
            let (difference, second) = difference.overflowing_sub(u32::from(borrow));
            *limb = difference;
            borrow = first || second;
        }
        while self.0.last() == Some(&0) {
            self.0.pop();
        }
    }

    fn into_decimal(mut self) -> Vec<u8> {
        // Nine digits a step, lowest first.
        let mut groups = Vec::new();
        while !self.0.is_empty() {
            let mut rest = 0u64;
            for limb in self.0.iter_mut().rev() {
                let value = rest << 32 | u64::from(*limb);
                *limb = (value / 1_000_000_000) as u32;
                rest = value % 1_000_000_000;
            }
            groups.push(rest);
            while self.0.last() == Some(&0) {
                self.0.pop();
            }
        }
        let mut text = groups.pop().unwrap_or(0).to_string();
        for group in groups.iter().rev() {
            text.push_str(&format!("{group:09}"));
        }
        text.into_bytes()
    }
}
