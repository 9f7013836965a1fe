package cost

import (
	"fmt"
	"math"
	"math/bits"
	"strconv"
	"strings"
)

// Money is in micro-dollars (millionths of a US dollar). Sums do not overflow: what would be more
// than nine trillion dollars is math.MaxInt64.
type Money int64

// Dollar is one US dollar.
const Dollar Money = 1_000_000

// Plus adds without overflow.
func (m Money) Plus(n Money) Money {
	sum := m + n
	switch {
	case m > 0 && n > 0 && sum < 0:
		return math.MaxInt64
	case m < 0 && n < 0 && sum >= 0:
		return math.MinInt64
	}
	return sum
}

// String is the amount in dollars with two decimals, rounded up, so that nothing that costs looks free;
// amounts below a dollar have four.
func (m Money) String() string {
	if m < 0 {
		return "-" + (-max(m, -math.MaxInt64)).String()
	}
	unit, digits := int64(10_000), 2
	if m < Dollar {
		unit, digits = 100, 4
	}
	n := int64(m) / unit
	if int64(m)%unit != 0 {
		n++
	}
	scale := int64(Dollar) / unit
	return fmt.Sprintf("$%d.%0*d", n/scale, digits, n%scale)
}

// ParseMoney reads an amount of dollars with up to six decimals: "5", "$0.25", "12.5 USD". It is
// not negative.
func ParseMoney(s string) (Money, error) {
	t := strings.TrimSpace(s)
	t = strings.TrimSpace(strings.TrimSuffix(strings.TrimPrefix(t, "$"), "USD"))
	whole, frac, dot := strings.Cut(t, ".")
	if whole == "" || dot && frac == "" || len(frac) > 6 || strings.ContainsFunc(whole+frac, func(r rune) bool { return r < '0' || r > '9' }) {
		return 0, fmt.Errorf("%q is not an amount of dollars, such as 5 or 0.25", s)
	}
	n, err := strconv.ParseInt(whole+frac+strings.Repeat("0", 6-len(frac)), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%q is more than can be counted", s)
	}
	return Money(n), nil
}

// charge is n × price ÷ per, rounded up, at most math.MaxInt64. Negative n and price count as 0.
func charge(n int64, price Money, per uint64) Money {
	if n <= 0 || price <= 0 || per == 0 {
		return 0
	}
	hi, lo := bits.Mul64(uint64(n), uint64(price))
	lo, carry := bits.Add64(lo, per-1, 0)
	hi += carry
	if hi >= per {
		return math.MaxInt64
	}
	q, _ := bits.Div64(hi, lo, per)
	return Money(min(q, math.MaxInt64))
}

// plus adds counts that are not negative, without overflow.
func plus(a, b int64) int64 { return int64(Money(a).Plus(Money(b))) }
