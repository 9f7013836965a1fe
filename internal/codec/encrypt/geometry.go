package encrypt

import "github.com/firn-backup/firn/internal/codec"

// Geometry is that of the cipher of a name, for readers, who have no encryptor.
func Geometry(name string) (codec.Geometry, error) {
	switch name {
	case Age:
		return (*ageEncryptor)(nil).Geometry(), nil
	case OpenPGP:
		return (*pgpEncryptor)(nil).Geometry(), nil
	case None:
		return noneCipher{}.Geometry(), nil
	}
	return codec.Geometry{}, unknownCipher(name)
}
