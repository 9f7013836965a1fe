package exclude

import "strings"

// glob says whether pattern matches all of text, as git's patterns do: "?" and
// brackets match any byte but a slash, "*" any number of them, and "**" between
// slashes, or at an end of the pattern, any number of whole elements.
func glob(pattern, text string) bool { return match(pattern, text) == yes }

type verdict byte

const (
	no   verdict = iota
	yes          // it matches
	over         // it does not, and would not with a star before it taking more of this element
	dead         // it does not, and would not with any star before it taking more
)

// match compares with backtracking: over and dead keep the work from growing
// with the power of the number of stars.
func match(p, text string) verdict {
	for i := 0; i < len(p); i++ {
		c := p[i]
		if text == "" && c != '*' {
			return dead
		}
		switch c {
		case '*':
			return star(p, i, text)
		case '?':
			if text[0] == '/' {
				return no
			}
		case '[':
			in, n := bracket(p[i:], text[0])
			if n == 0 {
				return dead
			}
			if !in || text[0] == '/' {
				return no
			}
			i += n - 1
		case '\\':
			i++
			if i == len(p) || p[i] != text[0] {
				return no
			}
		default:
			if c != text[0] {
				return no
			}
		}
		text = text[1:]
	}
	if text == "" {
		return yes
	}
	return no
}

// star matches from a run of stars at p[i] on.
func star(p string, i int, text string) verdict {
	j := i
	for j < len(p) && p[j] == '*' {
		j++
	}
	rest := p[j:]
	slashes := false // the star may take slashes
	if j-i >= 2 {
		before := i == 0 || p[i-1] == '/'
		after := rest == "" || rest[0] == '/' || strings.HasPrefix(rest, `\/`)
		if before && after {
			slashes = true
			// "a/**/b" matches "a/b" too: the stars and the slash take nothing.
			if rest != "" && rest[0] == '/' && match(rest[1:], text) == yes {
				return yes
			}
		}
	}
	if rest == "" {
		if !slashes && strings.Contains(text, "/") {
			return over
		}
		return yes
	}
	if !slashes && rest[0] == '/' {
		// One star before a slash takes all of this element.
		k := strings.IndexByte(text, '/')
		if k < 0 {
			return no
		}
		return match(rest, text[k:])
	}
	for ; text != ""; text = text[1:] {
		v := match(rest, text)
		if v != no && (!slashes || v != over) {
			return v
		}
		if v == no && !slashes && text[0] == '/' {
			return over
		}
	}
	return dead
}

// bracket says whether c is in the bracket expression that p begins with, and
// how many bytes of p that takes; 0 when it is not closed or not understood.
func bracket(p string, c byte) (in bool, n int) {
	i := 1
	negated := i < len(p) && (p[i] == '!' || p[i] == '^')
	if negated {
		i++
	}
	var last byte // beginning of a range
	haveLast := false
	for first := true; ; first = false {
		if i >= len(p) {
			return false, 0
		}
		b := p[i]
		switch {
		case b == ']' && !first:
			return in != negated, i + 1
		case b == '-' && haveLast && i+1 < len(p) && p[i+1] != ']':
			i++
			if p[i] == '\\' {
				i++
				if i >= len(p) {
					return false, 0
				}
			}
			in = in || last <= c && c <= p[i]
			haveLast = false
			i++
			continue
		case b == '[' && i+1 < len(p) && p[i+1] == ':':
			end := strings.IndexByte(p[i+2:], ']')
			if end < 0 {
				return false, 0
			}
			name := p[i+2 : i+2+end]
			if strings.HasSuffix(name, ":") {
				member, known := class(name[:len(name)-1], c)
				if !known {
					return false, 0
				}
				in = in || member
				haveLast = false
				i += end + 3
				continue
			}
			// Not a class after all, but a bracket like any other byte.
		case b == '\\':
			i++
			if i >= len(p) {
				return false, 0
			}
			b = p[i]
		}
		in = in || b == c
		last, haveLast = b, true
		i++
	}
}

// class says whether c is in the POSIX character class, in the C locale.
func class(name string, c byte) (in, known bool) {
	lower, upper := 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z'
	digit := '0' <= c && c <= '9'
	switch name {
	case "alpha":
		return lower || upper, true
	case "lower":
		return lower, true
	case "upper":
		return upper, true
	case "digit":
		return digit, true
	case "alnum":
		return lower || upper || digit, true
	case "xdigit":
		return digit || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F', true
	case "space":
		return c == ' ' || '\t' <= c && c <= '\r', true
	case "blank":
		return c == ' ' || c == '\t', true
	case "cntrl":
		return c < ' ' || c == 0x7f, true
	case "print":
		return ' ' <= c && c <= '~', true
	case "graph":
		return ' ' < c && c <= '~', true
	case "punct":
		return ' ' < c && c <= '~' && !lower && !upper && !digit, true
	}
	return false, false
}
