package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// mixed makes about size bytes of what a home holds: four tenths source text
// in many small files, four tenths incompressible files of some megabytes, two tenths logs.
// The text is cut out of the Go distribution's own source at random places.
func mixed(dir string, size int64) error {
	r := rand.New(rand.NewPCG(1, 2))
	source, err := corpus(16 << 20)
	if err != nil {
		return err
	}
	src := rand.NewChaCha8([32]byte{7})
	for i, left := 0, size*4/10; left > 0; i++ {
		n := int64(500 + r.ExpFloat64()*9000)
		path := filepath.Join(dir, "src", fmt.Sprintf("pkg%03d", i/100), fmt.Sprintf("file%05d.go", i))
		if err := writeFile(path, n, func(w *bufio.Writer) { cut(w, r, source, n) }); err != nil {
			return err
		}
		left -= n
	}
	for i, left := 0, size*4/10; left > 0; i++ {
		n := int64(1500<<10) + r.Int64N(6<<20)
		name := fmt.Sprintf("img%04d.jpg", i)
		if i == 3 {
			n, name = 1<<20, "one-mebibyte.bin"
		}
		path := filepath.Join(dir, "photos", name)
		if err := writeFile(path, n, func(w *bufio.Writer) { noise(w, src, n) }); err != nil {
			return err
		}
		left -= n
	}
	for i, left := 0, size*2/10; left > 0; i++ {
		n := int64(8 << 20)
		path := filepath.Join(dir, "log", fmt.Sprintf("app.log.%d", i))
		if err := writeFile(path, n, func(w *bufio.Writer) { logs(w, r, n) }); err != nil {
			return err
		}
		left -= n
	}
	return nil
}

// corpus is size bytes of the Go distribution's source.
func corpus(size int) ([]byte, error) {
	out, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		return nil, fmt.Errorf("find the Go source: %w", err)
	}
	var all []byte
	full := errors.New("enough")
	err = filepath.WalkDir(filepath.Join(strings.TrimSpace(string(out)), "src"), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || filepath.Ext(path) != ".go" {
			return err
		}
		b, err := os.ReadFile(path)
		if all = append(all, b...); err == nil && len(all) >= size {
			err = full
		}
		return err
	})
	if err != nil && err != full {
		return nil, fmt.Errorf("read the Go source: %w", err)
	}
	return all, nil
}

// cut writes n bytes of text from a random place, beginning with a line.
func cut(w *bufio.Writer, r *rand.Rand, text []byte, n int64) {
	for n > 0 {
		at := r.IntN(len(text))
		at += bytes.IndexByte(text[at:], '\n') + 1
		k := min(n, int64(len(text)-at))
		w.Write(text[at : at+int(k)])
		n -= k
	}
}

// many makes n small files, a hundred to a directory.
func many(dir string, n int) error {
	r := rand.New(rand.NewPCG(3, 4))
	for i := range n {
		path := filepath.Join(dir, fmt.Sprintf("d%03d", i/10000), fmt.Sprintf("e%03d", i/100%100), fmt.Sprintf("f%06d.txt", i))
		if err := writeFile(path, 100, func(w *bufio.Writer) { text(w, r, 100, i) }); err != nil {
			return err
		}
	}
	return nil
}

func writeFile(path string, size int64, fill func(*bufio.Writer)) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	w := bufio.NewWriterSize(f, 256<<10)
	fill(w)
	if err := w.Flush(); err != nil {
		f.Close()
		return err
	}
	if err := f.Truncate(size); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}

var words = []string{"if", "err", "return", "func", "range", "context", "value", "string", "index", "offset", "size",
	"buffer", "reader", "writer", "volume", "frame", "nil", "struct", "package", "import", "hash", "entry", "path", "for", "switch", "case"}

func text(w *bufio.Writer, r *rand.Rand, n int64, file int) {
	for done := int64(0); done < n; {
		k, _ := fmt.Fprintf(w, "\t%s%d, %s := %s.%s(%s, %d)\n", words[r.IntN(len(words))], r.IntN(40), words[r.IntN(len(words))],
			words[r.IntN(len(words))], words[r.IntN(len(words))], words[r.IntN(len(words))], r.IntN(1000)+file)
		done += int64(k)
	}
}

func noise(w *bufio.Writer, src *rand.ChaCha8, n int64) {
	var b [4096]byte
	for done := int64(0); done < n; done += int64(len(b)) {
		src.Read(b[:])
		w.Write(b[:])
	}
}

func logs(w *bufio.Writer, r *rand.Rand, n int64) {
	for done, t := int64(0), 0; done < n; t += r.IntN(900) {
		k, _ := fmt.Fprintf(w, "2026-11-%02dT%02d:%02d:%02d.%03dZ level=info host=web%02d path=/api/v1/items/%d status=%d bytes=%d\n",
			1+t/86400000%28, t/3600000%24, t/60000%60, t/1000%60, t%1000, r.IntN(12), r.IntN(1e6), 200+100*r.IntN(4), r.IntN(50000))
		done += int64(k)
	}
}
