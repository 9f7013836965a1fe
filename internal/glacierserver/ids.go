package glacierserver

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"math/big"
)

// Ids on the wire look as the service's do: opaque, of 138 (archives) or 92 characters (uploads, jobs) of
// base64url, any of which may be the first one. Inside is the store's own name, so
// that nothing has to be kept to find it:
//
//	tag(8) | kind and name, XORed with a key stream made of the tag
//
// The tag is a hash over the vault's own id, the kind and the name: a mistyped id, one of
// another kind and one of another vault are recognized. It is a check sum and no secret.

type idKind byte

const (
	archiveID idKind = 'a'
	longID    idKind = 'h' // an archive whose name does not fit: its hash
	uploadID  idKind = 'u'
	jobID     idKind = 'j'
)

const (
	archiveBytes = 103 // 138 characters
	otherBytes   = 69  // 92 characters
	tagBytes     = 8
)

// alphabet are the characters of archives' names in a store.
const alphabet = "-./0123456789=ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz"

var errBadID = errors.New("no id of this vault")

// wireID is the id of something called name. What the name is of decides its length.
func wireID(vault string, kind idKind, name string) string {
	size := otherBytes
	if kind == archiveID {
		size = archiveBytes
	}
	body := make([]byte, size-tagBytes)
	body[0] = byte(kind)
	if kind == archiveID {
		if !pack(body[1:], name) {
			body[0] = byte(longID)
			sum := sha256.Sum256([]byte(name))
			copy(body[1:], sum[:])
		}
	} else {
		copy(body[1:], name) // a ULID, of 26 characters
	}
	tag := idTag(vault, body)
	mask(body, tag)
	return base64.RawURLEncoding.EncodeToString(append(tag, body...))
}

// parseID finds the name in an id of that kind. For an archive with a long name it is the
// name's hash, and long is true.
func parseID(vault string, kind idKind, id string) (name string, long bool, err error) {
	raw, err := base64.RawURLEncoding.Strict().DecodeString(id)
	size := otherBytes
	if kind == archiveID {
		size = archiveBytes
	}
	if err != nil || len(raw) != size {
		return "", false, errBadID
	}
	tag, body := raw[:tagBytes], raw[tagBytes:]
	mask(body, tag)
	if subtle.ConstantTimeCompare(tag, idTag(vault, body)) != 1 {
		return "", false, errBadID
	}
	switch idKind(body[0]) {
	case archiveID:
		if kind == archiveID {
			return unpack(body[1:]), false, nil
		}
	case longID:
		if kind == archiveID {
			return string(body[1 : 1+sha256.Size]), true, nil
		}
	case kind:
		return string(body[1 : 1+26]), false, nil
	}
	return "", false, errBadID
}

func idTag(vault string, body []byte) []byte {
	h := sha256.New()
	h.Write([]byte("firn glacier id\x00" + vault + "\x00"))
	h.Write(body)
	return h.Sum(nil)[:tagBytes]
}

// mask makes body look random, or itself again.
func mask(body, tag []byte) {
	var block [tagBytes + 4]byte
	copy(block[:], tag)
	for i := 0; i < len(body); i += sha256.Size {
		binary.BigEndian.PutUint32(block[tagBytes:], uint32(i))
		key := sha256.Sum256(block[:])
		for j := i; j < min(i+sha256.Size, len(body)); j++ {
			body[j] ^= key[j-i]
		}
	}
}

// pack writes a name as a number in the alphabet's base, digits from 1 so that none gets lost. It
// returns false when the name does not fit.
func pack(to []byte, name string) bool {
	base, n := big.NewInt(int64(len(alphabet)+1)), new(big.Int)
	for i := range len(name) {
		digit := indexByte(name[i])
		if digit < 0 {
			return false
		}
		n.Mul(n, base)
		n.Add(n, big.NewInt(int64(digit+1)))
		if n.BitLen() > 8*len(to) {
			return false
		}
	}
	n.FillBytes(to)
	return true
}

func unpack(from []byte) string {
	base, n, digit := big.NewInt(int64(len(alphabet)+1)), new(big.Int).SetBytes(from), new(big.Int)
	var name []byte
	for n.Sign() > 0 {
		n.DivMod(n, base, digit)
		if digit.Sign() == 0 {
			return "" // no name is written so
		}
		name = append(name, alphabet[digit.Int64()-1])
	}
	for i, j := 0, len(name)-1; i < j; i, j = i+1, j-1 {
		name[i], name[j] = name[j], name[i]
	}
	return string(name)
}

func indexByte(c byte) int {
	for i := range len(alphabet) {
		if alphabet[i] == c {
			return i
		}
	}
	return -1
}
