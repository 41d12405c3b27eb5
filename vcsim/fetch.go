package main

import (
	"reflect"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/soap"
)

// FetchResponse is the answer for a property that is not set. Stock answers
// with another type, which pyVmomi can't decode. The name is the XML element's.
type FetchResponse struct{}

type emptyFetch struct {
	Res    *FetchResponse `xml:"urn:vim25 FetchResponse,omitempty"`
	Fault_ *soap.Fault    `xml:"http://schemas.xmlsoap.org/soap/envelope/ Fault,omitempty"`
}

// Fault makes emptyFetch a response body.
func (b *emptyFetch) Fault() *soap.Fault { return b.Fault_ }

// Fetch is how pyVmomi reads a single property. The request's type is internal
// to govmomi, hence "any", which the simulator's reflection accepts.
func (c *collector) Fetch(ctx *simulator.Context, req any) soap.HasFault {
	if ctx.Session == nil && reflect.ValueOf(req).Elem().FieldByName("Prop").String() == "currentSession" {
		// pyVim's session stub asks for it before it logs in.
		return &emptyFetch{Res: &FetchResponse{}}
	}
	stock := reflect.ValueOf(&c.PropertyCollector).MethodByName("Fetch")
	res := stock.Call([]reflect.Value{reflect.ValueOf(ctx), reflect.ValueOf(req)})[0].Interface().(soap.HasFault)
	if b, ok := res.(*methods.RetrievePropertiesExBody); ok && b.Fault_ == nil {
		return &emptyFetch{Res: &FetchResponse{}}
	}
	return res
}
