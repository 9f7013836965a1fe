package awsconn

import (
	"errors"
	"strings"
	"testing"

	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/internal/failure"
)

// No error repeats what may be a secret, whichever of several faults is met.
func TestURLSecrets(t *testing.T) {
	t.Parallel()
	for _, bad := range []string{
		"x://me:hush@host/", "x://a:hu%zzsh@host", "y://host?endpoint=http://me:hush@nas", "x://host?endpoint=http://me:hush@nas&a=", "x://host?a=1&a=2&endpoint=http%3A%2F%2Fme%3Ahush%40nas",
		"x://host?secret=hush", "x://host?known=bad&secret=hush@x", "x://host?endpoint=http://me:hush@nas#f", "x://host?endpoint=http://hush%4",
	} {
		u, err := ParseURL("x", bad)
		if err == nil {
			err = u.Params([]string{"endpoint", "known"}, func(name, v string) (bool, string) {
				switch name {
				case "endpoint":
					_, why := ParseEndpoint(v)
					return true, why
				case "known":
					return true, "it is bad"
				}
				return false, ""
			})
		}
		if !errors.Is(err, coldstore.ErrInvalid) || failure.KindOf(err) != failure.Usage || strings.Contains(err.Error(), "hu") {
			t.Errorf("%s: %v", bad, err)
		}
	}
}

func TestParseEndpoint(t *testing.T) {
	t.Parallel()
	for v, want := range map[string]string{
		"http://nas": "http://nas", "https://nas:9000/": "https://nas:9000", "https://nas/s3//": "https://nas/s3",
		"nas": "", "ftp://nas": "", "http://": "", "http://u@nas": "", "http://nas?q": "", "http://nas#f": "", "": "",
	} {
		if got, why := ParseEndpoint(v); got != want || (why == "") != (want != "") {
			t.Errorf("%q: %q, %q", v, got, why)
		}
	}
}
