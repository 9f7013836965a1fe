package transfer

// InBatches gives what comes through done to note, at most so many at a time: as many as there are, without waiting for more. It
// reads done to its end whatever note returns, so that nobody waits for it for ever; the error is note's last one. So acknowledged
// deletions are written down in few transactions.
func InBatches[T any](done <-chan T, most int, note func([]T) error) error {
	var failed error
	for x := range done {
		batch := []T{x}
		for more := true; more && len(batch) < most; {
			select {
			case y, ok := <-done:
				if more = ok; ok {
					batch = append(batch, y)
				}
			default:
				more = false
			}
		}
		if err := note(batch); err != nil {
			failed = err
		}
	}
	return failed
}
