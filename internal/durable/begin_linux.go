package durable

import "syscall"

// beginSync asks for writeback of what is dirty in the range (SYNC_FILE_RANGE_WRITE, sync_file_range(2)).
func beginSync(fd int, off, n int64) {
	const write = 2
	_ = syscall.SyncFileRange(fd, off, n, write) // some file systems cannot
}
