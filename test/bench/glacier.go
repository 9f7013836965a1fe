package main

import (
	"bufio"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// glacierKeys are what clients sign with; a server on loopback without keys takes any.
var glacierKeys = []string{"AWS_ACCESS_KEY_ID=bench", "AWS_SECRET_ACCESS_KEY=bench", "AWS_DEFAULT_REGION=us-east-1", "AWS_EC2_METADATA_DISABLED=true"}

// glacier times uploads to, and downloads from, Firn's own server of vaults on loopback: beside the machine's
// bound, the slower of hashing (each byte four times: tree hash and payload hash, at the client and the server, on
// two cores) and of writing it durably; and beside awscli. Each run measures all of them in turn.
func (b *bench) glacier(megabytes, runs int) error {
	const file = "archive.bin"
	if err := writeFile(filepath.Join(b.dir, file), int64(megabytes)<<20, func(w *bufio.Writer) {
		noise(w, rand.NewChaCha8([32]byte{9}), int64(megabytes)<<20)
	}); err != nil {
		return err
	}
	s, err := b.serve()
	if err != nil {
		return err
	}
	defer s.stop()
	b.env = append(b.env, glacierKeys...)
	url := "glacier://us-east-1/bench?endpoint=" + s.url
	if _, err := b.run(b.firn, "vault", "create", "--quiet", url); err != nil {
		return err
	}
	hash, err := exec.Command(b.firn, "treehash", filepath.Join(b.dir, file)).Output()
	if err != nil {
		return fmt.Errorf("firn treehash: %w", err)
	}
	aws := "aws --endpoint-url " + s.url + " glacier "
	scripts := map[string]string{
		"dd":       "dd if=" + file + " of=dd.out bs=4M conv=fdatasync status=none; rm dd.out",
		"aws":      aws + "upload-archive --account-id - --vault-name bench --body " + file + " > /dev/null",
		"parts":    multipart(aws, file, megabytes, strings.Fields(string(hash))[0]),
		"download": "rm -f back.bin; " + b.firn + " archive retrieve --quiet '" + url + "' name:" + file + " -o back.bin --wait",
		"get":      aws + `get-job-output --account-id - --vault-name bench --job-id="$(cat job)" back.aws > /dev/null`,
		"compare":  "cmp " + file + " back.bin && cmp " + file + " back.aws",
	}
	names := []string{"dd", "aws", "parts", "download", "get", "compare"}
	times := map[string][]time.Duration{}
	var bound, passes []time.Duration
	var peak, serverPeak int64
	for i := range runs {
		if _, err := b.run("sync"); err != nil {
			return err
		}
		d, err := hashes(filepath.Join(b.dir, file), 4)
		if err != nil {
			return err
		}
		passes = append(passes, d)
		m, err := b.run(b.firn, "archive", "upload", "--quiet", url, file)
		if err != nil {
			return err
		}
		times["upload"], peak = append(times["upload"], m.wall), max(peak, m.peak)
		if i == 0 { // what awscli gets: a job of that archive, done
			if _, err := b.shell(jobScript(aws)); err != nil {
				return err
			}
		}
		for _, n := range names {
			if m, err = b.shell(scripts[n]); err != nil {
				return err
			}
			times[n] = append(times[n], m.wall)
		}
		bound = append(bound, max(passes[i], times["dd"][i]))
	}
	serverPeak = s.stop()
	rate := func(name string) string {
		return fmt.Sprintf("%s, %.0f MB/s", secs(median(times[name])), float64(megabytes)*1.048576/median(times[name]).Seconds())
	}
	what := fmt.Sprintf("upload of %s MiB to firn serve glacier", thousands(megabytes))
	b.row(what+": share of the machine's bound", rate("upload"), fmt.Sprintf("hashing %s, dd %s", secs(median(passes)), secs(median(times["dd"]))),
		medianRatio(bound, times["upload"]), "≥ 0.70")
	b.row(what+" / aws glacier upload-archive", rate("upload"), rate("aws"), medianRatio(times["upload"], times["aws"]), "")
	b.row(what+" / aws glacier upload-multipart-part", rate("upload"), rate("parts"), medianRatio(times["upload"], times["parts"]), "")
	b.row("download / aws glacier get-job-output, which compares nothing", rate("download"), rate("get"), medianRatio(times["download"], times["get"]), "")
	b.row("upload: peak memory (and the server's)", fmt.Sprintf("%d MiB (%d MiB)", peak>>20, serverPeak>>20), "", 0, "< 200 MiB")
	return nil
}

// multipart is what people do with awscli: parts of a file, four at a time.
func multipart(aws, file string, megabytes int, hash string) string {
	const part = 64
	var b strings.Builder
	fmt.Fprintf(&b, `u=$(%sinitiate-multipart-upload --account-id - --vault-name bench --part-size %d --query uploadId --output text); mkdir -p parts; split -b %dM -d -a 5 %s parts/p; `, aws, part<<20, part, file)
	fmt.Fprintf(&b, `seq 0 %d | xargs -P 4 -I{} bash -euc 'f=parts/p$(printf %%05d {}); a=$(({}*%d)); z=$((a+$(stat -c %%s $f)-1)); `, (megabytes-1)/part, part<<20)
	fmt.Fprintf(&b, `%supload-multipart-part --account-id - --vault-name bench --upload-id="$0" --range "bytes $a-$z/*" --body $f > /dev/null' "$u"; rm -r parts; `, aws)
	fmt.Fprintf(&b, `%scomplete-multipart-upload --account-id - --vault-name bench --upload-id="$u" --archive-size %d --checksum %s > /dev/null`, aws, megabytes<<20, hash)
	return b.String()
}

// jobScript makes an archive readable and keeps the job's id.
func jobScript(aws string) string {
	return `id=$(` + aws + `upload-archive --account-id - --vault-name bench --body archive.bin --query archiveId --output text)
` + aws + `initiate-job --account-id - --vault-name bench --job-parameters "{\"Type\":\"archive-retrieval\",\"ArchiveId\":\"$id\"}" --query jobId --output text > job`
}

// hashes is how long it takes to hash a file so many times, on two cores.
func hashes(file string, times int) (time.Duration, error) {
	began := time.Now()
	errs := make([]error, 2)
	var both sync.WaitGroup
	for i := range errs {
		both.Go(func() {
			for range times / len(errs) {
				f, err := os.Open(file)
				if err == nil {
					_, err = io.CopyBuffer(struct{ io.Writer }{sha256.New()}, struct{ io.Reader }{f}, make([]byte, 1<<20))
					err = errors.Join(err, f.Close())
				}
				errs[i] = errors.Join(errs[i], err)
			}
		})
	}
	both.Wait()
	return time.Since(began), errors.Join(errs...)
}

// server is a running firn serve glacier.
type server struct {
	url string
	cmd *exec.Cmd
}

func (b *bench) serve() (*server, error) {
	cmd := exec.Command(b.firn, "serve", "glacier", "--root", filepath.Join(b.dir, "served"), "--listen", "127.0.0.1:0")
	cmd.Env, cmd.Dir, cmd.Stderr = b.env, b.dir, nil
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		_ = cmd.Process.Kill()
		return nil, fmt.Errorf("firn serve glacier: %w", errors.Join(err, cmd.Wait()))
	}
	return &server{url: strings.TrimSpace(line), cmd: cmd}, nil
}

// stop ends the server, and tells its peak memory in bytes; 0 when it was stopped before.
func (s *server) stop() int64 {
	if s.cmd.ProcessState != nil {
		return 0
	}
	_ = s.cmd.Process.Signal(os.Interrupt)
	_ = s.cmd.Wait()
	return peakOf(s.cmd.ProcessState)
}
