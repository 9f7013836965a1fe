package adopt

import (
	"bufio"
	"fmt"
	"os"
	"strings"

	"github.com/firn-backup/firn/internal/failure"
)

// inventoryHeader is the first line of an inventory that Amazon Glacier was asked for as CSV.
const inventoryHeader = "ArchiveId,ArchiveDescription,CreationDate,Size,SHA256TreeHash"

// maxInventoryLine is how long a line of one may be, in bytes: descriptions have 1,024 at most.
const maxInventoryLine = 16 << 10

// inventoryCSV reads such an inventory. It is no CSV as others write it: a quote within a description is \", and a backslash is itself. So it is read
// from both ends, where no comma can be in a field.
func inventoryCSV(file string) ([]cmdItem, error) {
	in, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer in.Close() // it was only read
	s := bufio.NewScanner(in)
	s.Buffer(make([]byte, maxInventoryLine), maxInventoryLine)
	var items []cmdItem
	for n := 1; s.Scan(); n++ {
		line := strings.TrimRight(s.Text(), "\r")
		if n == 1 || line == "" {
			continue
		}
		it, err := inventoryLine(line)
		if err != nil {
			return nil, fmt.Errorf("read %s: line %d: %w", file, n, err)
		}
		items = append(items, it)
	}
	if err := s.Err(); err != nil {
		return nil, failure.Wrap(failure.Damaged, fmt.Errorf("read %s: %w", file, err))
	}
	return items, nil
}

func inventoryLine(line string) (cmdItem, error) {
	id, rest, _ := strings.Cut(line, ",")
	last := strings.Split(rest, ",")
	if len(last) < 4 || len(last[len(last)-1]) != 64 {
		return cmdItem{}, failure.Errorf(failure.Damaged, "it is cut off, or no archive of an inventory")
	}
	n := len(last) - 3
	description := strings.Join(last[:n], ",")
	if len(description) >= 2 && description[0] == '"' && description[len(description)-1] == '"' {
		description = strings.ReplaceAll(description[1:len(description)-1], `\"`, `"`)
	}
	return cmdArchive(func(key string) string {
		return map[string]string{"ArchiveId": id, "ArchiveDescription": description, "CreationDate": last[n], "Size": last[n+1], "SHA256TreeHash": last[n+2]}[key]
	})
}
