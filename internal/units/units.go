// Package units reads and prints sizes, durations, rates and points in time as
// people write them on a command line or in a config file. It is pure: the
// clock and the place are arguments. docs/reference/units.md is its rules for
// users.
package units

import (
	"fmt"
	"math"
	"math/big"
	"strconv"
	"strings"
	"time"
)

// powers are the multipliers of the letters after a number.
const powers = "KMGTPE"

// ParseSize reads a number of bytes: a decimal number, of which a fraction may
// be a part, spaces or none, and a unit or none, in any case of letters.
//
//	B or nothing         bytes
//	K M G T P E          powers of 1024, also written KiB MiB GiB TiB PiB EiB
//	KB MB GB TB PB EB    powers of 1000
//
// What a fraction leaves below one byte is cut off ("1.5" is an error: there
// are no half bytes). The result is 0 to 2^63-1.
func ParseSize(s string) (int64, error) {
	number, unit := split(s)
	mult, ok := sizeUnit(unit)
	if !ok {
		return 0, fmt.Errorf("size %q: unknown unit %q (use B, KiB, MiB, GiB, TiB, or kB, MB, GB, TB)", s, unit)
	}
	v, err := scale(number, mult)
	if err != nil {
		return 0, fmt.Errorf("size %q: %w", s, err)
	}
	return v, nil
}

func sizeUnit(unit string) (int64, bool) {
	u := strings.ToUpper(unit)
	if u == "" || u == "B" {
		return 1, true
	}
	i := strings.IndexByte(powers, u[0])
	if i < 0 {
		return 0, false
	}
	switch u[1:] {
	case "", "IB":
		return 1 << (10 * (i + 1)), true
	case "B":
		return pow1000(i + 1), true
	}
	return 0, false
}

func pow1000(n int) int64 {
	v := int64(1)
	for range n {
		v *= 1000
	}
	return v
}

// split cuts a leading number from its unit.
func split(s string) (number, unit string) {
	s = strings.TrimSpace(s)
	i := strings.IndexFunc(s, func(r rune) bool { return (r < '0' || r > '9') && r != '.' })
	if i < 0 {
		return s, ""
	}
	return s[:i], strings.TrimSpace(s[i:])
}

// scale multiplies a decimal number exactly and cuts off what is below one.
func scale(number string, mult int64) (int64, error) {
	whole, frac, dotted := strings.Cut(number, ".")
	if whole == "" || (dotted && frac == "") || strings.Contains(frac, ".") {
		return 0, fmt.Errorf("not a number")
	}
	if dotted && mult == 1 {
		return 0, fmt.Errorf("a fraction needs a unit")
	}
	if len(number) > 40 {
		return 0, fmt.Errorf("too long a number")
	}
	r, ok := new(big.Rat).SetString(number)
	if !ok {
		return 0, fmt.Errorf("not a number")
	}
	r.Mul(r, new(big.Rat).SetInt64(mult))
	v := new(big.Int).Quo(r.Num(), r.Denom())
	if !v.IsInt64() {
		return 0, fmt.Errorf("too large")
	}
	return v.Int64(), nil
}

// ExactSize prints n so that ParseSize reads back exactly n: in the largest
// power of 1024 that divides it. Negative sizes are printed as plain numbers.
func ExactSize(n int64) string {
	if n <= 0 {
		return strconv.FormatInt(n, 10) + "B"
	}
	i := -1
	for n%1024 == 0 && i+1 < len(powers) {
		n /= 1024
		i++
	}
	if i < 0 {
		return strconv.FormatInt(n, 10) + "B"
	}
	return strconv.FormatInt(n, 10) + powers[i:i+1] + "iB"
}

// Size prints n for people: three digits and a power of 1024, "1.44 GiB",
// "512 B". The value is rounded down, so that it never promises more.
func Size(n int64) string {
	if n < 0 {
		if n == math.MinInt64 {
			return "-8.00 EiB"
		}
		return "-" + Size(-n)
	}
	if n < 1024 {
		return strconv.FormatInt(n, 10) + " B"
	}
	i := 0
	div := int64(1024)
	for n/div >= 1024 {
		div *= 1024
		i++
	}
	whole := n / div
	rest := new(big.Int).Mul(big.NewInt(n%div), big.NewInt(100)) // div may be 2^60
	hundredths := rest.Quo(rest, big.NewInt(div)).Int64()
	unit := powers[i:i+1] + "iB"
	switch {
	case whole >= 100:
		return fmt.Sprintf("%d %s", whole, unit)
	case whole >= 10:
		return fmt.Sprintf("%d.%d %s", whole, hundredths/10, unit)
	}
	return fmt.Sprintf("%d.%02d %s", whole, hundredths, unit)
}

// ParseRate reads bytes a second: a size with or without "/s" ("10MiB/s"), or
// bits with a decimal unit ("100Mbit/s", "1Gbit"). The result is at least 1.
func ParseRate(s string) (int64, error) {
	t := strings.TrimSpace(s)
	if u := strings.ToLower(t); strings.HasSuffix(u, "/s") {
		t = t[:len(t)-2]
	}
	var v int64
	var err error
	if u := strings.ToLower(t); strings.HasSuffix(u, "bit") {
		v, err = parseBits(t[:len(t)-3])
	} else {
		v, err = ParseSize(t)
	}
	if err != nil {
		return 0, fmt.Errorf("rate %q: %w", s, err)
	}
	if v == 0 {
		return 0, fmt.Errorf("rate %q: must be at least one byte a second", s)
	}
	return v, nil
}

func parseBits(s string) (int64, error) {
	number, unit := split(s)
	mult := int64(1)
	if unit != "" {
		i := strings.Index(powers, strings.ToUpper(unit))
		if i < 0 || len(unit) != 1 {
			return 0, fmt.Errorf("unknown unit %q (use kbit, Mbit, Gbit)", unit+"bit")
		}
		mult = pow1000(i + 1)
	}
	v, err := scale(number, mult)
	return v / 8, err
}

// Rate prints bytes a second for people: "12.3 MiB/s".
func Rate(bytesPerSecond float64) string {
	if bytesPerSecond >= math.MaxInt64 || math.IsNaN(bytesPerSecond) {
		return "?"
	}
	return Size(int64(bytesPerSecond)) + "/s"
}

const day = 24 * time.Hour

// ParseDuration reads what time.ParseDuration reads, and days of 24 hours and
// weeks of seven: "180d", "2w", "1d12h", "90m". It must not be negative.
func ParseDuration(s string) (time.Duration, error) {
	t := strings.TrimSpace(s)
	if t == "0" {
		return 0, nil
	}
	if t == "" {
		return 0, fmt.Errorf("duration %q: empty", s)
	}
	var total time.Duration
	for rest := t; rest != ""; {
		number, after := split(rest)
		n := strings.IndexFunc(after, func(r rune) bool { return (r >= '0' && r <= '9') || r == '.' })
		if n < 0 {
			n = len(after)
		}
		unit := strings.TrimSpace(after[:n])
		rest = after[n:]
		one, ok := durationUnit(unit)
		if !ok {
			return 0, fmt.Errorf("duration %q: unknown unit %q (use s, m, h, d or w)", s, unit)
		}
		v, err := scale(number, int64(one))
		if err != nil {
			return 0, fmt.Errorf("duration %q: %w", s, err)
		}
		if total > math.MaxInt64-time.Duration(v) {
			return 0, fmt.Errorf("duration %q: too large", s)
		}
		total += time.Duration(v)
	}
	return total, nil
}

func durationUnit(u string) (time.Duration, bool) {
	switch u {
	case "w":
		return 7 * day, true
	case "d":
		return day, true
	case "h":
		return time.Hour, true
	case "m", "min":
		return time.Minute, true
	case "s":
		return time.Second, true
	case "ms":
		return time.Millisecond, true
	case "us", "µs":
		return time.Microsecond, true
	case "ns":
		return 1, true
	}
	return 0, false
}

// Duration prints d so that ParseDuration reads it back exactly: "180d",
// "1d12h", "1h30m", "0s". Negative durations are printed as time.Duration does.
func Duration(d time.Duration) string {
	if d <= 0 {
		if d == 0 {
			return "0s"
		}
		return d.String()
	}
	var b strings.Builder
	if n := d / day; n > 0 {
		fmt.Fprintf(&b, "%dd", n)
		d -= n * day
	}
	if n := d / time.Hour; n > 0 {
		fmt.Fprintf(&b, "%dh", n)
		d -= n * time.Hour
	}
	if n := d / time.Minute; n > 0 {
		fmt.Fprintf(&b, "%dm", n)
		d -= n * time.Minute
	}
	if d > 0 {
		b.WriteString(d.String())
	}
	return b.String()
}

// Clock prints a running time or an ETA: "0:07", "12:34", "3:25:45".
func Clock(d time.Duration) string {
	s := int64(max(d, 0).Round(time.Second) / time.Second)
	if s >= 3600 {
		return fmt.Sprintf("%d:%02d:%02d", s/3600, s/60%60, s%60)
	}
	return fmt.Sprintf("%d:%02d", s/60, s%60)
}
