package adopt

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"strconv"
	"time"
	"unicode/utf8"
)

// Pickles are programs for a small machine, which Python runs. This reads those that hold nothing but texts, numbers, lists,
// dictionaries and datetimes; there is no instruction here that could do anything else, and a pickle that names
// another class is refused. https://github.com/python/cpython/blob/main/Lib/pickletools.py tells the instructions.

// What a pickle may come to: ten times what a tool leaves for a thousand directories.
const (
	maxPickle     = 4 << 20 // bytes
	maxPickleMemo = 1 << 20 // values; as many on the stack
)

// errPickle says that a pickle cannot be read.
var errPickle = errors.New("not a pickle that can be taken over")

// Values of pickles are string, int64, float64, bool, nil, time.Time, []byte, *pickleList and pickleDict.
type (
	pickleDict map[string]any
	pickleList struct{ items []any }
	// pickleName is a class or function that the pickle names; it is known by name only.
	pickleName string
	pickleMark struct{}
)

// The names that may be called, all of them as if they were written out.
const (
	nameDatetime = "datetime.datetime"
	nameEncode   = "_codecs.encode"
	nameOrdered  = "collections.OrderedDict"
)

type unpickler struct {
	data  []byte
	at    int
	stack []any
	memo  map[int]any
}

// unpickle reads a pickle of protocols 0 to 5. Times are in zone, which the pickle does not tell.
func unpickle(data []byte, zone *time.Location) (v any, err error) {
	if len(data) > maxPickle {
		return nil, fmt.Errorf("%w: it is longer than %d bytes", errPickle, maxPickle)
	}
	u := &unpickler{data: data, memo: map[int]any{}}
	for {
		op, err := u.take(1)
		if err != nil {
			return nil, err
		}
		if op[0] == '.' {
			return u.pop()
		}
		if err := u.do(op[0], zone); err != nil {
			return nil, err
		}
		if len(u.stack) > maxPickleMemo {
			return nil, u.bad("it has too many values")
		}
	}
}

func (u *unpickler) bad(format string, args ...any) error {
	return fmt.Errorf("%w: at byte %d: %s", errPickle, u.at, fmt.Sprintf(format, args...))
}

func (u *unpickler) take(n int) ([]byte, error) {
	if n < 0 || n > len(u.data)-u.at {
		return nil, u.bad("it ends too early")
	}
	u.at += n
	return u.data[u.at-n : u.at], nil
}

// number is a little-endian number of so many bytes.
func (u *unpickler) number(n int) (int, error) {
	b, err := u.take(n)
	if err != nil {
		return 0, err
	}
	var full [8]byte
	copy(full[:], b)
	v := binary.LittleEndian.Uint64(full[:])
	if v > math.MaxInt32 {
		return 0, u.bad("it ends too early")
	}
	return int(v), nil
}

func (u *unpickler) line() (string, error) {
	i := bytes.IndexByte(u.data[u.at:], '\n')
	if i < 0 {
		return "", u.bad("it ends too early")
	}
	b, err := u.take(i + 1)
	return string(b[:max(i, 0)]), err
}

func (u *unpickler) push(v any) { u.stack = append(u.stack, v) }

func (u *unpickler) pop() (any, error) {
	if len(u.stack) == 0 {
		return nil, u.bad("a value is missing")
	}
	v := u.stack[len(u.stack)-1]
	u.stack = u.stack[:len(u.stack)-1]
	return v, nil
}

// marked are the values since the last mark, which is taken away with them.
func (u *unpickler) marked() ([]any, error) {
	for i := len(u.stack) - 1; i >= 0; i-- {
		if _, ok := u.stack[i].(pickleMark); ok {
			list := append([]any(nil), u.stack[i+1:]...)
			u.stack = u.stack[:i]
			return list, nil
		}
	}
	return nil, u.bad("a mark is missing")
}

// do carries out one instruction.
func (u *unpickler) do(op byte, zone *time.Location) error {
	switch op {
	case 0x80: // PROTO
		b, err := u.take(1)
		if err == nil && b[0] > 5 {
			err = u.bad("protocol %d is not known", b[0])
		}
		return err
	case 0x95: // FRAME: how much comes, which does not matter here
		_, err := u.take(8)
		return err
	case '(':
		u.push(pickleMark{})
	case '}':
		u.push(pickleDict{})
	case ']', ')':
		u.push(&pickleList{})
	case 'N':
		u.push(nil)
	case 0x88, 0x89:
		u.push(op == 0x88)
	case '0': // POP
		_, err := u.pop()
		return err
	case '2': // DUP
		v, err := u.pop()
		if err == nil {
			u.push(v)
			u.push(v)
		}
		return err
	case 'K', 'M', 'J', 0x8a, 'I', 'L', 'G', 'F':
		return u.numeric(op)
	case 'X', 0x8c, 0x8d, 'V', 'U', 'T', 'S', 'C', 'B', 0x8e:
		return u.text(op)
	case 'p', 'q', 'r', 0x94, 'g', 'h', 'j':
		return u.remember(op)
	case 'c', 0x93:
		return u.name(op)
	case 'R':
		return u.call(zone)
	case 'd', 'l', 't', 0x85, 0x86, 0x87, 's', 'u', 'a', 'e':
		return u.collect(op)
	default:
		return u.bad("instruction %#02x is not among those that are carried out", op)
	}
	return nil
}

func (u *unpickler) remember(op byte) error {
	key := len(u.memo)
	var err error
	switch op {
	case 'p', 'g':
		var text string
		if text, err = u.line(); err == nil {
			if key, err = strconv.Atoi(text); err != nil {
				err = u.bad("%q is not a number", text)
			}
		}
	case 'q', 'h':
		key, err = u.number(1)
	case 'r', 'j':
		key, err = u.number(4)
	}
	if err != nil {
		return err
	}
	if op == 'g' || op == 'h' || op == 'j' {
		v, ok := u.memo[key]
		if !ok {
			return u.bad("value %d was not remembered", key)
		}
		u.push(v)
		return nil
	}
	if len(u.stack) == 0 || len(u.memo) >= maxPickleMemo {
		return u.bad("a value is missing, or too many are remembered")
	}
	u.memo[key] = u.stack[len(u.stack)-1]
	return nil
}

func (u *unpickler) name(op byte) error {
	var module, name string
	var err error
	if op == 'c' {
		if module, err = u.line(); err == nil {
			name, err = u.line()
		}
	} else {
		var a, b any
		if b, err = u.pop(); err == nil {
			a, err = u.pop()
		}
		m, ok1 := a.(string)
		n, ok2 := b.(string)
		if err == nil && (!ok1 || !ok2) {
			err = u.bad("a name that is not a text")
		}
		module, name = m, n
	}
	if err != nil {
		return err
	}
	full := module + "." + name
	switch full {
	case nameDatetime, nameEncode, nameOrdered:
		u.push(pickleName(full))
		return nil
	}
	return u.bad("it names %q, which is not carried out", full)
}

// call makes what a call of one of the names would make.
func (u *unpickler) call(zone *time.Location) error {
	args, err := u.pop()
	if err != nil {
		return err
	}
	callee, err := u.pop()
	if err != nil {
		return err
	}
	name, ok1 := callee.(pickleName)
	list, ok2 := args.(*pickleList)
	if !ok1 || !ok2 {
		return u.bad("a call of what is not a name")
	}
	switch name {
	case nameOrdered:
		if len(list.items) != 0 {
			return u.bad("a dictionary made of other things")
		}
		u.push(pickleDict{})
		return nil
	case nameEncode:
		if len(list.items) == 2 && list.items[1] == "latin1" {
			if s, ok := list.items[0].(string); ok && utf8.ValidString(s) {
				var b []byte
				for _, r := range s {
					if r > 0xff {
						return u.bad("a text that is not Latin-1")
					}
					b = append(b, byte(r))
				}
				u.push(b)
				return nil
			}
		}
		return u.bad("an encoding that is not known")
	}
	if len(list.items) != 1 {
		return u.bad("a datetime with a time zone, or of other things than ten bytes")
	}
	var b []byte
	switch v := list.items[0].(type) {
	case []byte:
		b = v
	case string: // Python 2
		b = []byte(v)
	}
	t, ok := pythonTime(b, zone)
	if !ok {
		return u.bad("not a datetime")
	}
	u.push(t)
	return nil
}

// pythonTime reads the ten bytes that Python keeps of a datetime: the year in two, month, day, hour, minute, second, and the
// microsecond in three. The month's highest bit tells the later of two equal hours in autumn, which is not looked at.
func pythonTime(b []byte, zone *time.Location) (time.Time, bool) {
	if len(b) != 10 {
		return time.Time{}, false
	}
	year, month, day := int(b[0])<<8|int(b[1]), int(b[2]&0x7f), int(b[3])
	micro := int(b[7])<<16 | int(b[8])<<8 | int(b[9])
	if year < 1 || year > 9999 || month < 1 || month > 12 || day < 1 || day > 31 || b[4] > 23 || b[5] > 59 || b[6] > 59 || micro > 999_999 {
		return time.Time{}, false
	}
	return time.Date(year, time.Month(month), day, int(b[4]), int(b[5]), int(b[6]), micro*1000, zone), true
}

// collect makes and fills lists, tuples and dictionaries.
func (u *unpickler) collect(op byte) error {
	var items []any
	var err error
	switch op {
	case 0x85, 0x86, 0x87, 's', 'a':
		n := map[byte]int{0x85: 1, 0x86: 2, 0x87: 3, 's': 2, 'a': 1}[op]
		items = make([]any, n)
		for i := n - 1; i >= 0 && err == nil; i-- {
			items[i], err = u.pop()
		}
	default:
		items, err = u.marked()
	}
	if err != nil {
		return err
	}
	switch op {
	case 'l', 't', 0x85, 0x86, 0x87:
		u.push(&pickleList{items})
		return nil
	case 'd':
		u.push(pickleDict{})
	}
	if len(u.stack) == 0 {
		return u.bad("a value is missing")
	}
	switch top := u.stack[len(u.stack)-1].(type) {
	case *pickleList:
		if op != 'a' && op != 'e' {
			return u.bad("a list that is filled as a dictionary")
		}
		top.items = append(top.items, items...)
	case pickleDict:
		if op == 'a' || op == 'e' || len(items)%2 != 0 {
			return u.bad("a dictionary that is filled as a list")
		}
		for i := 0; i < len(items); i += 2 {
			key, ok := items[i].(string)
			if !ok {
				return u.bad("a key that is not a text")
			}
			top[key] = items[i+1]
		}
	default:
		return u.bad("neither a list nor a dictionary")
	}
	return nil
}
