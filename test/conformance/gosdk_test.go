package conformance

import (
	"bytes"
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/glacier"
	"github.com/aws/aws-sdk-go-v2/service/glacier/types"
	"github.com/aws/smithy-go"

	"github.com/firn-backup/firn/internal/glacierserver"
	"github.com/firn-backup/firn/treehash"
)

const (
	accessKey = "AKIDEXAMPLE0CONFORM"
	secretKey = "secret/of+the=suite"
	account   = "111122223333"
	mib       = 1 << 20
)

// served is a server in this process.
type served struct {
	url   string
	root  string
	clock string
	end   func()
}

func (s *served) set(t testing.TB, clock string) {
	t.Helper()
	if err := os.WriteFile(s.clock, []byte(clock), 0o600); err != nil {
		t.Fatal(err)
	}
}

// serve serves a new root, and ends with the test at the latest.
func serve(t testing.TB, change func(*glacierserver.Options)) *served {
	t.Helper()
	dir := t.TempDir()
	s := &served{root: filepath.Join(dir, "root"), clock: filepath.Join(dir, "clock")}
	s.set(t, "2026-03-01T00:00:00Z")
	s.start(t, change)
	return s
}

func (s *served) start(t testing.TB, change func(*glacierserver.Options)) {
	t.Helper()
	o := glacierserver.Options{
		Root: s.root, Account: account, Keys: []glacierserver.Key{{Profile: "suite", ID: accessKey, Secret: secretKey}},
		Clock: &glacierserver.Clock{File: s.clock},
	}
	if change != nil {
		change(&o)
	}
	server, err := glacierserver.New(o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ready, ended := make(chan string, 1), make(chan error, 1)
	go func() {
		ended <- server.Run(ctx, glacierserver.Listen{Address: "127.0.0.1:0", Ready: func(url string) error { ready <- url; return nil }})
	}()
	select {
	case s.url = <-ready:
	case err := <-ended:
		cancel()
		t.Fatal(err)
	}
	s.end = sync.OnceFunc(func() {
		cancel()
		if err := errors.Join(<-ended, server.Close()); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(s.end)
}

func (s *served) client(retries int, options ...func(*glacier.Options)) *glacier.Client {
	return glacier.New(glacier.Options{
		Region: "us-east-1", BaseEndpoint: aws.String(s.url), RetryMaxAttempts: retries,
		Credentials: credentials.NewStaticCredentialsProvider(accessKey, secretKey, ""),
	}, options...)
}

func must[T any](t testing.TB) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// refused wants a modelled error of the SDK.
func refused[E error](t testing.TB, err error, code string) {
	t.Helper()
	var typed E
	var api smithy.APIError
	if !errors.As(err, &typed) || !errors.As(err, &api) || api.ErrorCode() != code {
		t.Fatalf("%T (%v), want %s", err, err, code)
	}
}

func mod251(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i % 251)
	}
	return b
}

func table(t testing.TB, name string) []map[string]string {
	t.Helper()
	f, err := os.Open(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	lines := must[[][]string](t)(csv.NewReader(f).ReadAll())
	var rows []map[string]string
	for _, l := range lines[1:] {
		row := map[string]string{}
		for i, name := range lines[0] {
			row[name] = l[i]
		}
		rows = append(rows, row)
	}
	return rows
}

// Vaults, lists and waiters; errors as the SDK's own types [5] [9] [12]-[16].
func TestGoVaults(t *testing.T) {
	t.Parallel()
	s := serve(t, nil)
	c, ctx := s.client(1), t.Context()
	for i := range 25 {
		out := must[*glacier.CreateVaultOutput](t)(c.CreateVault(ctx, &glacier.CreateVaultInput{VaultName: aws.String(fmt.Sprintf("v%02d", i))}))
		if want := fmt.Sprintf("/%s/vaults/v%02d", account, i); *out.Location != want {
			t.Errorf("location %s, want %s", *out.Location, want)
		}
	}
	var names []string
	pages := 0
	for p := glacier.NewListVaultsPaginator(c, &glacier.ListVaultsInput{}); p.HasMorePages(); pages++ {
		for _, v := range must[*glacier.ListVaultsOutput](t)(p.NextPage(ctx)).VaultList {
			names = append(names, *v.VaultName)
		}
	}
	if pages != 3 || len(names) != 25 || !slices.IsSorted(names) {
		t.Errorf("%d pages of %v", pages, names)
	}
	in := &glacier.DescribeVaultInput{VaultName: aws.String("v07")}
	if err := glacier.NewVaultExistsWaiter(c).Wait(ctx, in, time.Minute); err != nil {
		t.Error(err)
	}
	d := must[*glacier.DescribeVaultOutput](t)(c.DescribeVault(ctx, in))
	if *d.CreationDate != "2026-03-01T00:00:00.000Z" || d.LastInventoryDate != nil || d.NumberOfArchives != 0 {
		t.Errorf("described %+v", d)
	}
	must[*glacier.DeleteVaultOutput](t)(c.DeleteVault(ctx, &glacier.DeleteVaultInput{VaultName: in.VaultName}))
	if err := glacier.NewVaultNotExistsWaiter(c).Wait(ctx, in, time.Minute); err != nil {
		t.Error(err)
	}
	_, err := c.DescribeVault(ctx, in)
	refused[*types.ResourceNotFoundException](t, err, "ResourceNotFoundException")
	_, err = c.CreateVault(ctx, &glacier.CreateVaultInput{VaultName: aws.String("a b")})
	refused[*types.InvalidParameterValueException](t, err, "InvalidParameterValueException")
}

// Uploads with the hashes that the SDK computes, and with the caller's [17] [42] [67].
func TestGoArchives(t *testing.T) {
	t.Parallel()
	s := serve(t, nil)
	c, ctx, vault := s.client(1), t.Context(), aws.String("archives")
	must[*glacier.CreateVaultOutput](t)(c.CreateVault(ctx, &glacier.CreateVaultInput{VaultName: vault}))
	for _, row := range table(t, "treehash-vectors.csv") {
		size := must[int](t)(strconv.Atoi(row["size"]))
		if row["pattern"] != "mod251" || size == 0 || size > 34*mib {
			continue
		}
		data := mod251(size)
		up := must[*glacier.UploadArchiveOutput](t)(c.UploadArchive(ctx, &glacier.UploadArchiveInput{
			VaultName: vault, ArchiveDescription: aws.String("size " + row["size"]), Body: bytes.NewReader(data),
		}))
		if *up.Checksum != row["treehash"] {
			t.Fatalf("tree hash of %d bytes: %s, want %s", size, *up.Checksum, row["treehash"])
		}
		job := must[*glacier.InitiateJobOutput](t)(c.InitiateJob(ctx, &glacier.InitiateJobInput{
			VaultName: vault, JobParameters: &types.JobParameters{Type: aws.String("archive-retrieval"), ArchiveId: up.ArchiveId},
		}))
		out := must[*glacier.GetJobOutputOutput](t)(c.GetJobOutput(ctx, &glacier.GetJobOutputInput{VaultName: vault, JobId: job.JobId}))
		got := must[[]byte](t)(io.ReadAll(out.Body))
		out.Body.Close()
		if !bytes.Equal(got, data) || *out.Checksum != *up.Checksum || out.Status != 200 || *out.ArchiveDescription != "size "+row["size"] {
			t.Fatalf("read %d bytes back: %+v", size, out)
		}
		must[*glacier.DeleteArchiveOutput](t)(c.DeleteArchive(ctx, &glacier.DeleteArchiveInput{VaultName: vault, ArchiveId: up.ArchiveId}))
	}
	// With a checksum of the caller's the SDK does not say the body's SHA-256.
	_, err := c.UploadArchive(ctx, &glacier.UploadArchiveInput{VaultName: vault, Body: bytes.NewReader([]byte("x")), Checksum: aws.String(treehash.Sum([]byte("x")).String())})
	refused[*types.MissingParameterValueException](t, err, "MissingParameterValueException")
}

// Multipart uploads [26]-[32] [67].
func TestGoMultipart(t *testing.T) {
	t.Parallel()
	s := serve(t, nil)
	c, ctx, vault := s.client(1), t.Context(), aws.String("multipart")
	must[*glacier.CreateVaultOutput](t)(c.CreateVault(ctx, &glacier.CreateVaultInput{VaultName: vault}))
	data := mod251(9*mib + 77)
	whole := aws.String(treehash.Sum(data).String())
	id := must[*glacier.InitiateMultipartUploadOutput](t)(c.InitiateMultipartUpload(ctx, &glacier.InitiateMultipartUploadInput{
		VaultName: vault, PartSize: aws.String("2097152"), ArchiveDescription: aws.String("go"),
	})).UploadId
	put := func(at int, piece []byte) error {
		_, err := c.UploadMultipartPart(ctx, &glacier.UploadMultipartPartInput{
			VaultName: vault, UploadId: id, Body: bytes.NewReader(piece), Range: aws.String(fmt.Sprintf("bytes %d-%d/*", at, at+len(piece)-1)),
		})
		return err
	}
	complete := func(size int, hash *string) (*glacier.CompleteMultipartUploadOutput, error) {
		return c.CompleteMultipartUpload(ctx, &glacier.CompleteMultipartUploadInput{VaultName: vault, UploadId: id, ArchiveSize: aws.String(strconv.Itoa(size)), Checksum: hash})
	}
	var wg sync.WaitGroup
	for at := 0; at < len(data); at += 2 * mib {
		wg.Go(func() {
			for _, piece := range [][]byte{make([]byte, 2*mib), data[at:min(at+2*mib, len(data))]} {
				if err := put(at, piece); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	for _, bad := range []error{put(mib, make([]byte, mib)), put(0, make([]byte, 2*mib+1))} {
		refused[*types.InvalidParameterValueException](t, bad, "InvalidParameterValueException")
	}
	if err := put(4*mib, []byte("short")); err != nil {
		t.Fatal(err)
	}
	_, err := complete(len(data), whole)
	refused[*types.InvalidParameterValueException](t, err, "InvalidParameterValueException")
	if err := put(4*mib, data[4*mib:6*mib]); err != nil {
		t.Fatal(err)
	}
	var ranges []string
	for p := glacier.NewListPartsPaginator(c, &glacier.ListPartsInput{VaultName: vault, UploadId: id, Limit: aws.Int32(2)}); p.HasMorePages(); {
		for _, part := range must[*glacier.ListPartsOutput](t)(p.NextPage(ctx)).Parts {
			ranges = append(ranges, *part.RangeInBytes)
		}
	}
	if want := "[0-2097151 2097152-4194303 4194304-6291455 6291456-8388607 8388608-9437260]"; fmt.Sprint(ranges) != want {
		t.Errorf("parts %v, want %s", ranges, want)
	}
	_, err = complete(len(data)+1, whole)
	refused[*types.InvalidParameterValueException](t, err, "InvalidParameterValueException")
	done := must[*glacier.CompleteMultipartUploadOutput](t)(complete(len(data), whole))
	again := must[*glacier.CompleteMultipartUploadOutput](t)(complete(len(data), whole))
	if *done.ArchiveId != *again.ArchiveId || *done.Checksum != *whole || len(*done.ArchiveId) != 138 {
		t.Errorf("completed as %+v, then as %+v", done, again)
	}
	_, err = c.ListParts(ctx, &glacier.ListPartsInput{VaultName: vault, UploadId: id})
	refused[*types.ResourceNotFoundException](t, err, "ResourceNotFoundException")
}

// An archive of 10,000 parts [34]. The first 9,999 are put into the vault's files as if they had been sent; with
// FIRN_SOAK=1 they are sent.
func TestGoManyParts(t *testing.T) {
	t.Parallel()
	s := serve(t, nil)
	c, ctx, vault := s.client(1), t.Context(), aws.String("parts")
	must[*glacier.CreateVaultOutput](t)(c.CreateVault(ctx, &glacier.CreateVaultInput{VaultName: vault}))
	id := must[*glacier.InitiateMultipartUploadOutput](t)(c.InitiateMultipartUpload(ctx, &glacier.InitiateMultipartUploadInput{VaultName: vault, PartSize: aws.String("1048576")})).UploadId
	part := make([]byte, mib)
	put := func(n int) error {
		_, err := c.UploadMultipartPart(ctx, &glacier.UploadMultipartPartInput{
			VaultName: vault, UploadId: id, Body: bytes.NewReader(part), Range: aws.String(fmt.Sprintf("bytes %d-%d/*", n*mib, (n+1)*mib-1)),
		})
		return err
	}
	const parts = 10_000
	hash := treehash.Sum(part)
	if os.Getenv("FIRN_SOAK") == "1" {
		for n := range parts - 1 {
			if err := put(n); err != nil {
				t.Fatal(err)
			}
		}
	} else {
		plant(t, filepath.Join(s.root, *vault, "uploads"), parts-1, hash)
	}
	if err := put(parts - 1); err != nil {
		t.Fatal(err)
	}
	refused[*types.InvalidParameterValueException](t, put(parts), "InvalidParameterValueException")
	n := 0
	for p := glacier.NewListPartsPaginator(c, &glacier.ListPartsInput{VaultName: vault, UploadId: id}); p.HasMorePages(); {
		n += len(must[*glacier.ListPartsOutput](t)(p.NextPage(ctx)).Parts)
	}
	if n != parts {
		t.Errorf("%d parts are listed", n)
	}
	hashes := slices.Repeat([]treehash.Hash{hash}, parts)
	done := must[*glacier.CompleteMultipartUploadOutput](t)(c.CompleteMultipartUpload(ctx, &glacier.CompleteMultipartUploadInput{
		VaultName: vault, UploadId: id, ArchiveSize: aws.String(strconv.Itoa(parts * mib)), Checksum: aws.String(treehash.Combine(hashes).String()),
	}))
	job := must[*glacier.InitiateJobOutput](t)(c.InitiateJob(ctx, &glacier.InitiateJobInput{VaultName: vault, JobParameters: &types.JobParameters{Type: aws.String("archive-retrieval"), ArchiveId: done.ArchiveId}}))
	out := must[*glacier.GetJobOutputOutput](t)(c.GetJobOutput(ctx, &glacier.GetJobOutputInput{VaultName: vault, JobId: job.JobId, Range: aws.String(fmt.Sprintf("bytes=%d-%d", (parts-2)*mib, parts*mib-1))}))
	defer out.Body.Close()
	if got := must[[]byte](t)(io.ReadAll(out.Body)); treehash.Sum(got) != treehash.Sum(append(part, part...)) {
		t.Error("the end is not what was stored")
	}
}

// plant writes parts of one hash, all zeros, into the only upload of a vault.
func plant(t *testing.T, uploads string, parts int, hash treehash.Hash) {
	t.Helper()
	dirs := must[[]os.DirEntry](t)(os.ReadDir(uploads))
	if len(dirs) != 1 {
		t.Fatalf("%d uploads", len(dirs))
	}
	dir := filepath.Join(uploads, dirs[0].Name())
	if err := os.Truncate(filepath.Join(dir, "data"), int64(parts)*mib); err != nil {
		t.Fatal(err)
	}
	log := must[*os.File](t)(os.OpenFile(filepath.Join(dir, "upload.jsonl"), os.O_WRONLY|os.O_APPEND, 0))
	defer log.Close()
	var text bytes.Buffer
	for n := range parts {
		fmt.Fprintf(&text, "\n{\"part\":%d,\"size\":%d,\"hash\":%q,\"at\":\"2026-03-01T00:00:00Z\"}\n", n*mib, mib, hash)
	}
	if _, err := log.Write(text.Bytes()); err != nil {
		t.Fatal(err)
	}
}

// The 140 rows of ranges [40] [43] [44].
func TestGoRanges(t *testing.T) {
	t.Parallel()
	s := serve(t, nil)
	c, ctx, vault := s.client(1), t.Context(), aws.String("ranges")
	must[*glacier.CreateVaultOutput](t)(c.CreateVault(ctx, &glacier.CreateVaultInput{VaultName: vault}))
	rows := table(t, "treehash-range-vectors.csv")
	if len(rows) != 140 {
		t.Fatalf("%d rows", len(rows))
	}
	jobs := map[string]*string{}
	start := func(archive, r *string) *string {
		return must[*glacier.InitiateJobOutput](t)(c.InitiateJob(ctx, &glacier.InitiateJobInput{VaultName: vault, JobParameters: &types.JobParameters{
			Type: aws.String("archive-retrieval"), ArchiveId: archive, RetrievalByteRange: r,
		}})).JobId
	}
	archives := map[string]*string{}
	read := func(job, r *string) (string, string) {
		out := must[*glacier.GetJobOutputOutput](t)(c.GetJobOutput(ctx, &glacier.GetJobOutputInput{VaultName: vault, JobId: job, Range: r}))
		defer out.Body.Close()
		return treehash.Sum(must[[]byte](t)(io.ReadAll(out.Body))).String(), aws.ToString(out.Checksum)
	}
	for _, row := range rows {
		size := row["archive_size"]
		if archives[size] == nil {
			archives[size] = must[*glacier.UploadArchiveOutput](t)(c.UploadArchive(ctx, &glacier.UploadArchiveInput{VaultName: vault, Body: bytes.NewReader(mod251(must[int](t)(strconv.Atoi(size))))})).ArchiveId
			jobs[size] = start(archives[size], nil)
		}
		want := ""
		if row["tree_hash_aligned"] == "1" {
			want = row["range_treehash"]
		}
		r := row["start"] + "-" + row["end"]
		got, stated := read(jobs[size], aws.String("bytes="+r))
		if got != row["range_treehash"] || stated != want {
			t.Errorf("range %s of %s: %s, stated %q", r, size, got, stated)
		}
		part := start(archives[size], &r)
		d := must[*glacier.DescribeJobOutput](t)(c.DescribeJob(ctx, &glacier.DescribeJobInput{VaultName: vault, JobId: part}))
		got, stated = read(part, nil)
		if got != row["range_treehash"] || stated != want || aws.ToString(d.SHA256TreeHash) != want || *d.RetrievalByteRange != r {
			t.Errorf("job for %s of %s: %s, stated %q, described %+v", r, size, got, stated, d)
		}
	}
}

// Retries of the SDK, and what it does not retry [48] [63] [64].
func TestGoFaults(t *testing.T) {
	t.Parallel()
	s := serve(t, func(o *glacierserver.Options) {
		o.ProvisionedOnly = true
		for _, text := range []string{"CreateVault:400:1:2", "UploadArchive:500:1:2", "ListTagsForVault:PolicyEnforcedException:1:1", "ListVaults:NoLongerSupportedException:1:1", "DescribeVault:drop:1:2", "DeleteVault:408:1:2", "ListJobs:lose:1:1"} {
			f, err := glacierserver.ParseFault(text)
			if err != nil {
				t.Fatal(err)
			}
			o.Faults = append(o.Faults, f)
		}
	})
	c, ctx, vault := s.client(3), t.Context(), aws.String("faults")
	must[*glacier.CreateVaultOutput](t)(c.CreateVault(ctx, &glacier.CreateVaultInput{VaultName: vault}))
	must[*glacier.DescribeVaultOutput](t)(c.DescribeVault(ctx, &glacier.DescribeVaultInput{VaultName: vault}))
	must[*glacier.ListJobsOutput](t)(c.ListJobs(ctx, &glacier.ListJobsInput{VaultName: vault}))
	must[*glacier.DeleteVaultOutput](t)(c.DeleteVault(ctx, &glacier.DeleteVaultInput{VaultName: aws.String("nothere")}))
	up := must[*glacier.UploadArchiveOutput](t)(c.UploadArchive(ctx, &glacier.UploadArchiveInput{VaultName: vault, Body: bytes.NewReader(mod251(3 * mib))}))
	_, err := c.ListTagsForVault(ctx, &glacier.ListTagsForVaultInput{VaultName: vault})
	var api smithy.APIError
	if !errors.As(err, &api) || api.ErrorCode() != "PolicyEnforcedException" {
		t.Errorf("ListTagsForVault: %v", err)
	}
	_, err = c.ListVaults(ctx, &glacier.ListVaultsInput{})
	refused[*types.NoLongerSupportedException](t, err, "NoLongerSupportedException")
	_, err = c.InitiateJob(ctx, &glacier.InitiateJobInput{VaultName: vault, JobParameters: &types.JobParameters{Type: aws.String("archive-retrieval"), ArchiveId: up.ArchiveId, Tier: aws.String("Expedited")}})
	refused[*types.InsufficientCapacityException](t, err, "InsufficientCapacityException")
}
