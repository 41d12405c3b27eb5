// Command vcsim simulates a vSphere site: one vCenter with a distributed switch
// whose ports behave, one ESXi endpoint per host, and a control API to count,
// delay and break calls. It is govmomi's simulator with the parts added that a
// program needs which sets VLANs on distributed ports. README.md lists every
// difference from the stock simulator.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"os"
	"os/signal"
	"syscall"
)

const (
	exitFailure = 1
	exitUsage   = 2
)

func main() { os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) }

// run is main with its surroundings as arguments; it returns the exit code.
func run(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("vcsim", flag.ContinueOnError)
	flags.SetOutput(stderr)
	sitePath := flags.String("site", "", "file that describes the site")
	exitOnEOF := flags.Bool("exit-on-stdin-eof", false, "stop when standard input ends, so that no simulator outlives its parent")
	verbose := flags.Bool("v", false, "log what the simulator logs")
	if err := flags.Parse(args); err != nil {
		return exitUsage
	}
	if *sitePath == "" || flags.NArg() != 0 {
		fmt.Fprintln(stderr, "vcsim: -site: missing; allowed: the path of a site file")
		return exitUsage
	}
	if !*verbose {
		log.SetOutput(io.Discard)
	}
	s, err := loadSite(*sitePath)
	if err != nil {
		fmt.Fprintf(stderr, "vcsim: %v\n", err)
		return exitUsage
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if *exitOnEOF {
		go func() {
			_, _ = io.Copy(io.Discard, stdin)
			stop()
		}()
	}
	dir, err := os.MkdirTemp("", "vcsim-")
	if err != nil {
		fmt.Fprintf(stderr, "vcsim: %v\n", err)
		return exitFailure
	}
	defer func() { _ = os.RemoveAll(dir) }()
	running, err := startUntil(ctx, s, dir)
	if err != nil {
		fmt.Fprintf(stderr, "vcsim: %s: %v\n", *sitePath, err)
		var wrong *siteError
		if errors.As(err, &wrong) {
			return exitUsage
		}
		return exitFailure
	}
	defer running.close()
	if err := json.NewEncoder(stdout).Encode(running.ready); err != nil {
		fmt.Fprintf(stderr, "vcsim: ready line: %v\n", err)
		return exitFailure
	}
	<-ctx.Done()
	return 0
}

// startUntil starts a site, or gives up when ctx ends first.
func startUntil(ctx context.Context, s *site, dir string) (*server, error) {
	type outcome struct {
		running *server
		err     error
	}
	started := make(chan outcome, 1)
	go func() {
		running, err := startServer(s, dir)
		started <- outcome{running, err}
	}()
	select {
	case o := <-started:
		return o.running, o.err
	case <-ctx.Done():
		return nil, errors.New("stopped before it was ready")
	}
}
