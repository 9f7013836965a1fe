package units

import "fmt"

// Count is "1 archive", "2 archives": n of what one is the singular of. The plural has an s, or
// ies instead of a y.
func Count[N int | int64 | uint64](n N, one string) string {
	switch {
	case n == 1:
	case one != "" && one[len(one)-1] == 'y':
		one = one[:len(one)-1] + "ies"
	default:
		one += "s"
	}
	return fmt.Sprintf("%d %s", n, one)
}
