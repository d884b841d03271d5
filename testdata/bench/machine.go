package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// machine describes what the numbers were measured on.
func (b *bench) machine() []fact {
	var kernel string
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		kernel = unix.ByteSliceToString(u.Release[:])
	}
	kib, _ := strconv.ParseFloat(strings.TrimSuffix(field("/proc/meminfo", "MemTotal"), " kB"), 64)
	return []fact{
		{"processor", fmt.Sprintf("%s, %d cores", field("/proc/cpuinfo", "model name"), runtime.NumCPU())},
		{"memory", fmt.Sprintf("%.0f GiB", kib/(1<<20))},
		{"kernel", "Linux " + kernel},
		{"filesystem", b.place.about},
		{"a system call", fmt.Sprintf("%.2f µs for an fstat(2)", systemCall(b.place.dir).Seconds()*1e6)},
	}
}

// systemCall is what looking at an open file takes, the least of some tries: of
// small files it is calls that take the time, and between kernels and virtual
// machines they differ by a multiple.
func systemCall(path string) time.Duration {
	f, err := os.Open(path)
	if err != nil {
		return 0
	}
	defer f.Close()
	const calls = 10_000
	least := time.Hour
	for range 10 {
		began := time.Now()
		var st unix.Stat_t
		for range calls {
			_ = unix.Fstat(int(f.Fd()), &st)
		}
		least = min(least, time.Since(began)/calls)
	}
	return least
}

// field is the value of the first line of a file that begins with a name and a colon.
func field(path, name string) string {
	text, err := os.ReadFile(path)
	if err != nil {
		return "unknown"
	}
	for line := range strings.Lines(string(text)) {
		if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == name {
			return strings.TrimSpace(value)
		}
	}
	return "unknown"
}

// versions are those of all that takes part.
func (b *bench) versions(ctx context.Context) []fact {
	list := []fact{{"snap", firstLine(ctx, b.snap, "--version")}, {"Go", runtime.Version()}}
	for _, program := range [][]string{
		{"tar", "--version"}, {"gzip", "--version"}, {"pigz", "--version"}, {"zstd", "--version"},
		{"restic", "version"}, {"borg", "--version"}, {"kopia", "--version"},
		{"docker", "version", "--format", "engine {{.Server.Version}}"},
	} {
		if line := firstLine(ctx, program...); line != "" {
			list = append(list, fact{program[0], line})
		}
	}
	if postgresHere() {
		list = append(list, fact{"PostgreSQL", firstLine(ctx, "sh", "-c", "$(ls -d /usr/lib/postgresql/*/bin | tail -n 1)/postgres --version")})
	}
	return list
}

// touch is touchMemory, behind which the peak of this process begins anew.
func (b *bench) touch(ctx context.Context, mib int) error {
	b.report.FloorMiB = max(b.report.FloorMiB, ownPeak())
	return touchMemory(ctx, mib)
}

// touchFor touches what a run that writes a tree of this size needs, and a
// quarter more.
func (b *bench) touchFor(ctx context.Context, size extent) error {
	return b.touch(ctx, int(size.bytes/inMiB*5/4))
}

// touchMemory writes to so many MiB of memory, less where there are less, and
// gives them back. A virtual machine may have given memory back to its host;
// getting it again is slow, and would be charged to whoever needs it first. It is
// huge pages that a kernel gives back (Linux, mm/page_reporting.c), so it is huge
// pages that are asked for: small ones would be made of what is still here.
func touchMemory(ctx context.Context, mib int) error {
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return err
	}
	free := int(info.Freeram * uint64(info.Unit) >> 20)
	peak, err := os.OpenFile("/proc/self/clear_refs", os.O_WRONLY, 0)
	if err != nil { // of a kernel without it everybody's peak would be this one
		return nil
	}
	defer peak.Close()
	if mib = min(mib, free/10*8); mib == 0 {
		return nil
	}
	memory, err := unix.Mmap(-1, 0, mib<<20, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return err
	}
	_ = unix.Madvise(memory, unix.MADV_HUGEPAGE) // a kernel without them has small ones
	var wait sync.WaitGroup
	for part := range slices.Chunk(memory, len(memory)/runtime.NumCPU()+1) {
		wait.Go(func() {
			for at := 0; at < len(part) && ctx.Err() == nil; at += os.Getpagesize() {
				part[at] = 1
			}
		})
	}
	wait.Wait()
	// What runs next would be said to have had as much: a program's peak begins
	// with that of the process that it was made from. 5 resets it
	// (proc_pid_clear_refs(5)).
	err = unix.Munmap(memory)
	if _, werr := peak.WriteString("5"); err == nil {
		err = werr
	}
	return errors.Join(ctx.Err(), err)
}

// ownPeak is the most memory that this process has had since touchMemory, in MiB.
func ownPeak() float64 {
	kib, _ := strconv.ParseFloat(strings.TrimSuffix(field("/proc/self/status", "VmHWM"), " kB"), 64)
	return kib / 1024
}
