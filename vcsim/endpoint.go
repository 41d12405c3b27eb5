package main

import (
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/mo"
)

// endpoint carries what our objects need to know about the endpoint they are
// in. The simulator makes a zero copy of the property collector for each
// session, so the collector can only find it in the registry. The embedded
// type makes it an object like any other for code that walks the registry.
type endpoint struct {
	mo.ExtensibleManagedObject
	gate *gate
}

var endpointRef = ref{Type: "VcsimEndpoint", Value: "endpoint"}

func registerEndpoint(m *simulator.Registry, g *gate) {
	e := &endpoint{gate: g}
	e.Self = endpointRef
	m.Put(e)
}

func gateOf(ctx *simulator.Context) *gate {
	if e := lookup[*endpoint](ctx.Map, endpointRef); e != nil {
		return e.gate
	}
	return newGate()
}
