package main

import (
	"encoding/json"
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"sync"
	"time"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/types"
)

// The levels on which a rule acts.
const (
	// levelHTTP: on the request: delay it, answer with a status, drop the connection.
	levelHTTP = "http"
	// levelSOAP: the method itself returns the fault.
	levelSOAP = "soap"
	// levelTask: the method returns a task, which ends with the fault.
	levelTask = "task"
)

// rule is one injected failure or delay.
type rule struct {
	ID      int64           `json:"id"`
	Level   string          `json:"level"`
	Method  string          `json:"method"`             // regular expression on the whole name of the method
	At      string          `json:"at,omitempty"`       // "vcenter" (the default), the name of a host, or "*"
	Object  string          `json:"object,omitempty"`   // regular expression on "Type:value"
	Fault   string          `json:"fault,omitempty"`    // name of a vim25 fault type
	Fields  json.RawMessage `json:"fields,omitempty"`   // its fields
	Skip    int             `json:"skip,omitempty"`     // leave out the first calls
	Count   int             `json:"count,omitempty"`    // how many calls to hit; 0: all
	DelayMS int             `json:"delay_ms,omitempty"` // before anything else
	Drop    string          `json:"drop,omitempty"`     // level http: "before" or "after" the call is executed
	Status  int             `json:"status,omitempty"`   // level http: answer with this status
	Hits    int             `json:"hits"`               // matching calls so far, skipped ones included

	method, object *regexp.Regexp
}

// ruleSet holds the rules in force; the first that matches a call acts.
type ruleSet struct {
	mu     sync.Mutex
	lastID int64
	rules  []*rule
}

// add checks a rule and puts it in force.
func (s *ruleSet) add(r *rule) error {
	if err := r.compile(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lastID++
	r.ID, r.Hits = s.lastID, 0
	s.rules = append(s.rules, r)
	return nil
}

func (r *rule) compile() error {
	if r.At == "" {
		r.At = vcenterName
	}
	if !slices.Contains([]string{levelHTTP, levelSOAP, levelTask}, r.Level) {
		return fmt.Errorf("level %q: allowed are http, soap and task", r.Level)
	}
	if !slices.Contains([]string{"", "before", "after"}, r.Drop) {
		return fmt.Errorf("drop %q: allowed are before and after", r.Drop)
	}
	if r.Level != levelHTTP && (r.Drop != "" || r.Status != 0) {
		return fmt.Errorf("drop and status are allowed on level http only")
	}
	if r.Level == levelHTTP && r.Fault != "" {
		return fmt.Errorf("fault is allowed on levels soap and task only")
	}
	var err error
	if r.method, err = regexp.Compile("^(?:" + r.Method + ")$"); err != nil {
		return fmt.Errorf("method: %w", err)
	}
	if r.Object != "" {
		if r.object, err = regexp.Compile("^(?:" + r.Object + ")$"); err != nil {
			return fmt.Errorf("object: %w", err)
		}
	}
	if r.Fault != "" {
		_, err = r.makeFault()
	}
	return err
}

// makeFault builds the vim25 fault of the rule.
func (r *rule) makeFault() (types.BaseMethodFault, error) {
	t, ok := types.TypeFunc()(r.Fault)
	if !ok {
		return nil, fmt.Errorf("fault %q: no such vim25 type", r.Fault)
	}
	value := reflect.New(t).Interface()
	if len(r.Fields) != 0 {
		if err := json.Unmarshal(r.Fields, value); err != nil {
			return nil, fmt.Errorf("fields of %s: %w", r.Fault, err)
		}
	}
	f, ok := value.(types.BaseMethodFault)
	if !ok {
		return nil, fmt.Errorf("fault %q: the type is no fault", r.Fault)
	}
	return f, nil
}

// outcome makes the fault of a compiled rule; nil for a mere delay.
func (r *rule) outcome() types.BaseMethodFault {
	if r.Fault == "" {
		return nil
	}
	f, err := r.makeFault()
	if err != nil {
		panic(err) // compile has made one already
	}
	return f
}

func (s *ruleSet) clear() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rules = nil
}

// list returns copies of the rules.
func (s *ruleSet) list() []rule {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := []rule{}
	for _, r := range s.rules {
		out = append(out, *r)
	}
	return out
}

// match returns a copy of the rule that acts on a call, or nil.
func (s *ruleSet) match(level, at, method, object string) *rule {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.rules {
		if r.Level != level || (r.At != at && r.At != "*") || !r.method.MatchString(method) ||
			(r.object != nil && !r.object.MatchString(object)) {
			continue
		}
		r.Hits++
		if r.Hits <= r.Skip || (r.Count > 0 && r.Hits > r.Skip+r.Count) {
			continue
		}
		hit := *r
		return &hit
	}
	return nil
}

func (r *rule) wait() { time.Sleep(time.Duration(r.DelayMS) * time.Millisecond) }

// soapFault applies the rules of level soap to a call.
func (s *ruleSet) soapFault(ctx *simulator.Context, at string, m *simulator.Method) types.BaseMethodFault {
	if ctx.Session != nil && isAdmin(ctx.Session.UserAgent) {
		return nil
	}
	r := s.match(levelSOAP, at, m.Name, m.This.Type+":"+m.This.Value)
	if r == nil {
		return nil
	}
	r.wait()
	return r.outcome()
}

// wrapTask applies the rules of level task to a task that is about to run.
func (s *ruleSet) wrapTask(at string, t *simulator.Task) {
	r := s.match(levelTask, at, taskMethodName(t.Info.Name), t.Info.Entity.Type+":"+t.Info.Entity.Value)
	if r == nil {
		return
	}
	run := t.Execute
	t.Execute = func(t *simulator.Task) (types.AnyType, types.BaseMethodFault) {
		r.wait()
		if f := r.outcome(); f != nil {
			return nil, f
		}
		return run(t)
	}
}
