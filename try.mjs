import { load } from './dist/index.js';
const e = await load();
const q=[{role:'user',content:'What is 3 + 4?'}];
const t=performance.now();
for (const options of [
 {format:{type:'schema',schema:{type:'object',properties:{answer:{type:'integer'},why:{type:'string',maxLength:20}},required:['answer','why'],additionalProperties:false}}, maxTokens:200},
 {format:{type:'regex',pattern:'(yes|no|[0-9]{1,3})!'}, maxTokens:100},
 {format:{type:'ebnf',grammar:'root ::= "the answer is " [0-9]+'}, maxTokens:60},
 {format:{type:'json'}, maxTokens:80, temperature:1, seed:3},
 {thinkingBudget:3, maxTokens:60},
 {thinkingBudget:0, maxTokens:60},
 {tools:[{name:'get_weather',parameters:{type:'object',properties:{city:{enum:['Dublin','Cork']}},required:['city'],additionalProperties:false}}], toolChoice:'required', maxTokens:200},
 {tools:[{name:'get_weather',parameters:{type:'object',properties:{city:{type:'string',maxLength:6}},required:['city']}},{name:'b'}], toolChoice:{name:'b'}, maxTokens:200},
 {format:{type:'regex',pattern:'[ab'}},
 {format:{type:'schema',schema:{type:'nonsense'}}},
 {format:{type:'regex',pattern:'x+y'}, maxTokens:30, thinkingBudget:2},
]) { const s=performance.now(); try { const r=await e.chat(q,options); console.log(JSON.stringify([r.reasoning,r.text,r.toolCalls,r.finishReason]), (performance.now()-s).toFixed(0),'ms', r.usage.cachedTokens); } catch(x){ console.log(x.message) } }
await e.dispose()
