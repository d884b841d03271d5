package engine

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/tiny-forge/snap/pkg/crew"
)

// TestAPanicOfOneCallWaitsForTheOthers: nobody would know how a call that is still
// stopping a container ends.
func TestAPanicOfOneCallWaitsForTheOthers(t *testing.T) {
	var ended atomic.Bool
	defer func() {
		if p, ok := recover().(*crew.Panic); !ok || p.Value != "a fault" || !ended.Load() {
			t.Errorf("it ended with %v; the other call had ended: %v", p, ended.Load())
		}
	}()
	both := []*Container{{}, {}}
	_ = Each(both, func(c *Container) error {
		if c == both[0] {
			panic("a fault")
		}
		time.Sleep(50 * time.Millisecond)
		ended.Store(true)
		return nil
	})
	t.Error("it did not panic")
}
