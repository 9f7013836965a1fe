package keyfile

import (
	"errors"
	"fmt"
	"strings"
)

// Bech32 (BIP 173), as age writes its keys: a readable prefix, "1", base 32
// without the letters that are easily confused, and a checksum that finds any
// four mistyped characters. age's own code is internal to it.
const bech32Charset = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"

func bech32Polymod(prefix string, values []byte) uint32 {
	sum := uint32(1)
	add := func(v byte) {
		top := sum >> 25
		sum = sum&0x1ffffff<<5 ^ uint32(v)
		for i, g := range [5]uint32{0x3b6a57b2, 0x26508e6d, 0x1ea119fa, 0x3d4233dd, 0x2a1462b3} {
			if top>>i&1 == 1 {
				sum ^= g
			}
		}
	}
	for i := range len(prefix) {
		add(prefix[i] >> 5)
	}
	add(0)
	for i := range len(prefix) {
		add(prefix[i] & 31)
	}
	for _, v := range values {
		add(v)
	}
	return sum
}

// bech32Encode writes data in capitals if the prefix is, else in small letters.
func bech32Encode(prefix string, data []byte) string {
	lower := strings.ToLower(prefix)
	var values []byte
	acc, bits := uint32(0), 0
	for _, b := range data {
		acc, bits = acc<<8|uint32(b), bits+8
		for bits >= 5 {
			bits -= 5
			values = append(values, byte(acc>>bits&31))
		}
	}
	if bits > 0 {
		values = append(values, byte(acc<<(5-bits)&31))
	}
	sum := bech32Polymod(lower, append(values, 0, 0, 0, 0, 0, 0)) ^ 1
	for i := range 6 {
		values = append(values, byte(sum>>(5*(5-i))&31))
	}
	var text strings.Builder
	text.WriteString(lower + "1")
	for _, v := range values {
		text.WriteByte(bech32Charset[v])
	}
	if lower != prefix {
		return strings.ToUpper(text.String())
	}
	return text.String()
}

var errMistyped = errors.New("is mistyped or cut: its checksum does not fit")

// bech32Decode returns the bytes of a text with that prefix, which must have the
// prefix's case. Errors do not repeat the text.
func bech32Decode(prefix, text string) ([]byte, error) {
	lower := strings.ToLower(prefix)
	if (lower == prefix && strings.ToLower(text) != text) || (lower != prefix && strings.ToUpper(text) != text) {
		return nil, errors.New("mixes capitals and small letters")
	}
	rest, ok := strings.CutPrefix(strings.ToLower(text), lower+"1")
	if !ok {
		return nil, fmt.Errorf("does not begin with %s1", prefix)
	}
	values := make([]byte, 0, len(rest))
	for i := range len(rest) {
		v := strings.IndexByte(bech32Charset, rest[i])
		if v < 0 {
			return nil, errMistyped
		}
		values = append(values, byte(v))
	}
	if len(values) < 6 || bech32Polymod(lower, values) != 1 {
		return nil, errMistyped
	}
	var data []byte
	acc, bits := uint32(0), 0
	for _, v := range values[:len(values)-6] {
		acc, bits = acc<<5|uint32(v), bits+5
		if bits >= 8 {
			bits -= 8
			data = append(data, byte(acc>>bits))
		}
	}
	if bits >= 5 || acc&(1<<bits-1) != 0 {
		return nil, errMistyped
	}
	return data, nil
}
