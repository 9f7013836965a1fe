package main

import (
	"bufio"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
)

// mixed makes about size bytes of what a home holds: four tenths source-like text
// in many small files, four tenths incompressible files of some megabytes, two tenths logs.
func mixed(dir string, size int64) error {
	r := rand.New(rand.NewPCG(1, 2))
	src := rand.NewChaCha8([32]byte{7})
	for i, left := 0, size*4/10; left > 0; i++ {
		n := int64(500 + r.ExpFloat64()*9000)
		path := filepath.Join(dir, "src", fmt.Sprintf("pkg%03d", i/100), fmt.Sprintf("file%05d.go", i))
		if err := writeFile(path, n, func(w *bufio.Writer) { text(w, r, n, i) }); err != nil {
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
